"""What an instance's nodes take and give: its `/object_info`, read leniently, since versions and packs differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

#: Types of inputs that are values, not links; whatever else is upper case is linked.
WIDGETS: Final = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})


class InputSpec(msgspec.Struct, frozen=True, gc=False):
    """One input: `type` as ComfyUI names it (`COMBO` for a list of choices); bounds are None where it has none.

    `upload` marks a file of the instance's input folder, `many` a choice of several.
    """

    type: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] | None = None
    upload: bool = False
    many: bool = False


class NodeClass(msgspec.Struct, frozen=True, gc=False):
    """One class of nodes: its inputs, the types of what it gives, and whether it is an output."""

    required: dict[str, InputSpec]
    optional: dict[str, InputSpec]
    outputs: tuple[str, ...]
    output_node: bool
    display_name: str = ""

    def input(self, name: str) -> InputSpec | None:
        """An input by its name."""
        return self.required.get(name) or self.optional.get(name)


NodeClasses = Mapping[str, NodeClass]


def read_node_classes(object_info: object) -> dict[str, NodeClass]:
    """The classes in a decoded `/object_info`; what cannot be understood of it is left out."""
    if not isinstance(object_info, dict):
        return {}
    return {name: _node_class(info) for name, info in object_info.items() if isinstance(info, dict)}


def choices_of(classes: NodeClasses, source: str) -> tuple[str, ...]:
    """What the input `<class>.<input>` may be, such as the checkpoints there are; empty if it is not there."""
    name, _, field = source.partition(".")
    spec = classes[name].input(field) if name in classes else None
    return tuple(str(choice) for choice in spec.choices) if spec and spec.choices else ()


def _node_class(info: Mapping[str, Any]) -> NodeClass:
    inputs = info.get("input")
    inputs = inputs if isinstance(inputs, dict) else {}
    outputs = info.get("output")
    return NodeClass(
        required=_inputs(inputs.get("required")),
        optional=_inputs(inputs.get("optional")),
        outputs=tuple(_type_name(each) for each in outputs) if isinstance(outputs, list) else (),
        output_node=info.get("output_node") is True,
        display_name=str(info.get("display_name") or ""),
    )


def _inputs(section: object) -> dict[str, InputSpec]:
    if not isinstance(section, dict):
        return {}
    return {name: _input(spec) for name, spec in section.items() if isinstance(spec, list) and spec}


def _input(spec: list[Any]) -> InputSpec:
    kind = spec[0]
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    choices = kind if isinstance(kind, list) else options.get("options")
    return InputSpec(
        type=_type_name(kind),
        minimum=_number(options.get("min")),
        maximum=_number(options.get("max")),
        choices=tuple(choices) if isinstance(choices, list) else None,
        upload=any(key.endswith("_upload") and value is True for key, value in options.items()),
        many=options.get("multiselect") is True or isinstance(options.get("multi_select"), dict),
    )


def _type_name(kind: object) -> str:
    return "COMBO" if isinstance(kind, list) else str(kind)


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
