"""The JSON Schema (draft 2020-12) of a workflow's `params`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from reverie_comfy_bridge.workflows.manifest import Parameter, Workflow
from reverie_comfy_bridge.workflows.node_classes import NodeClasses, choices_of
from reverie_comfy_bridge.workflows.parameters import bounds

Schema = dict[str, Any]
_TYPES: Final = {
    "string": "string",
    "choice": "string",
    "image": "string",
    "integer": "integer",
    "seed": "integer",
    "float": "number",
    "boolean": "boolean",
}


def schema_of(workflow: Workflow, instances: Sequence[NodeClasses] = ()) -> Schema:
    """What `params` of a job may hold; choices of the instances are those that any of them has.

    An image may also be given as the job's `inputImage`, so the first one is never required here.
    """
    first_image = next(iter(workflow.images), None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": workflow.title,
        "description": workflow.description,
        "type": "object",
        "properties": {
            name: _property(parameter, instances) for name, parameter in workflow.parameters.items()
        },
        "required": [
            name
            for name, parameter in workflow.parameters.items()
            if parameter.must_be_given and name != first_image
        ],
        "additionalProperties": False,
    }


def input_image_of(workflow: Workflow) -> str:
    """Whether `inputImage` is `required`, `optional` or `none`."""
    if not workflow.images:
        return "none"
    return "required" if workflow.parameters[workflow.images[0]].required else "optional"


def _property(parameter: Parameter, instances: Sequence[NodeClasses]) -> Schema:
    schema: Schema = {"type": _TYPES[parameter.type]}
    if not parameter.must_be_given:
        schema["type"] = [schema["type"], "null"]
    if parameter.title:
        schema["title"] = parameter.title
    if parameter.description:
        schema["description"] = parameter.description
    if parameter.default is not None:
        schema["default"] = parameter.default
    match parameter.type:
        case "string":
            schema["maxLength"] = parameter.max_length
        case "image":
            schema["pattern"] = "^fileRef:"
        case "choice":
            found = parameter.choices or _choices(parameter, instances)
            if found:  # else nobody knows them now
                schema["enum"] = [*found, *([] if parameter.must_be_given else [None])]
        case "integer" | "float" | "seed":
            low, high = bounds(parameter)
            schema |= {} if low is None else {"minimum": low}
            schema |= {} if high is None else {"maximum": high}
            schema |= {} if parameter.multiple is None else {"multipleOf": parameter.multiple}
    return schema


def _choices(parameter: Parameter, instances: Sequence[NodeClasses]) -> list[str]:
    found = (choice for classes in instances for choice in choices_of(classes, parameter.choices_from))
    return list(dict.fromkeys(found))
