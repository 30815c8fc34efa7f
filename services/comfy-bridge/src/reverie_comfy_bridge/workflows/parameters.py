"""A workflow's parameters: what a client gave, checked against the manifest, with defaults and seeds filled in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Final

from reverie_comfy_bridge.workflows.manifest import MAX_DRAWN_SEED, Parameter, Value, Workflow
from reverie_comfy_bridge.workflows.node_classes import NodeClasses, choices_of
from reverie_protocol.field_errors import FieldErrors, FieldErrorType, WrongValue
from reverie_protocol.jobs import ComfyParams
from reverie_protocol.scalars import check_text, expected

#: Marks a picture among a workflow's parameters; the gateway has put the storage key behind it.
REFERENCE: Final = "fileRef:"
MAX_SEED: Final = 2**63 - 1
#: Choices that a refusal lists.
MAX_LISTED: Final = 20


def image_keys(params: ComfyParams, workflow: Workflow | None) -> dict[str, str]:
    """Storage keys of a job's pictures by parameter; that of a client's own graph is called `inputImage`.

    `inputImage` is the workflow's first image.  What is no reference at all is left out: `read_values` refuses it.
    """
    if workflow is None:
        return {} if params.inputImage is None else {"inputImage": params.inputImage}
    keys = {}
    for number, name in enumerate(workflow.images):
        given = params.params.get(name)
        if isinstance(given, str) and given.startswith(REFERENCE):
            keys[name] = given.removeprefix(REFERENCE)
        elif number == 0 and params.inputImage is not None:
            keys[name] = params.inputImage
    return keys


def read_values(
    params: ComfyParams, workflow: Workflow, *, classes: NodeClasses, seed_from: str
) -> dict[str, Value]:
    """Every parameter's value but the images'; ReverieError `invalid_field` with each wrong one under `params`.

    A seed that is not given follows from `seed_from` (the job's id), so each attempt makes the same picture.
    """
    errors = FieldErrors()
    known = workflow.parameters
    for name in params.params:
        if name not in known:
            errors.add_unknown(("params",), name, known)
    keys = image_keys(params, workflow)
    if params.inputImage is not None and not workflow.images:
        errors.add(("inputImage",), FieldErrorType.UNKNOWN_FIELD, "this workflow takes no image")
    values: dict[str, Value] = {}
    for name, parameter in known.items():
        try:
            if parameter.type == "image":
                _check_image(name, parameter, params, keys, workflow)
            else:
                values[name] = _value(name, parameter, params.params.get(name), classes, seed_from)
        except WrongValue as wrong:
            errors.add(("params", name), wrong.type, wrong.msg)
    errors.raise_if_any()
    return values


def drawn_seed(seed_from: str, name: str) -> int:
    """The seed of a parameter that was not given one."""
    digest = hashlib.sha256(f"{seed_from}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & MAX_DRAWN_SEED


def _check_image(
    name: str, parameter: Parameter, params: ComfyParams, keys: Mapping[str, str], workflow: Workflow
) -> None:
    given = params.params.get(name)
    if given is not None and (not isinstance(given, str) or not given.startswith(REFERENCE)):
        raise WrongValue(FieldErrorType.TYPE_ERROR, "must be the reference of an upload, fileRef:<32 hex>")
    if name == workflow.images[0] and given is not None and params.inputImage not in (None, keys[name]):
        raise WrongValue(FieldErrorType.CONFLICT, "differs from inputImage")
    if parameter.required and name not in keys:
        hint = " (or `inputImage`)" if name == workflow.images[0] else ""
        raise WrongValue(FieldErrorType.MISSING, f"is required{hint}: the reference of an upload")


def _value(name: str, parameter: Parameter, given: object, classes: NodeClasses, seed_from: str) -> Value:
    if given is None:
        return _default(name, parameter, classes, seed_from)
    match parameter.type:
        case "boolean":
            if not isinstance(given, bool):
                raise expected("a boolean", given)
            return given
        case "string":
            return _text(parameter, given)
        case "choice":
            return _choice(parameter, given, classes)
        case _:
            return _number(parameter, given)


def _default(name: str, parameter: Parameter, classes: NodeClasses, seed_from: str) -> Value:
    if parameter.default is not None:
        return parameter.default
    if parameter.type == "seed":
        return drawn_seed(seed_from, name)
    if parameter.choices_from:
        return _first_choice(parameter, classes)
    raise WrongValue(FieldErrorType.MISSING, "is required")


def _text(parameter: Parameter, given: object) -> str:
    if not isinstance(given, str):
        raise expected("a string", given)
    check_text(given)
    if len(given) > parameter.max_length:
        raise WrongValue(FieldErrorType.TOO_LONG, f"must have at most {parameter.max_length} characters")
    return given


def _choice(parameter: Parameter, given: object, classes: NodeClasses) -> str:
    if not isinstance(given, str):
        raise expected("a string", given)
    choices = parameter.choices or choices_of(classes, parameter.choices_from)
    if given not in choices:
        shown = ", ".join(choices[:MAX_LISTED]) or "nothing here"
        more = f" and {len(choices) - MAX_LISTED} more" if len(choices) > MAX_LISTED else ""
        raise WrongValue(FieldErrorType.CHOICE, f"must be one of {shown}{more}")
    return given


def _first_choice(parameter: Parameter, classes: NodeClasses) -> str:
    choices = choices_of(classes, parameter.choices_from)
    if not choices:
        raise WrongValue(FieldErrorType.CHOICE, f"the instance has no {parameter.choices_from}")
    return choices[0]


def bounds(parameter: Parameter) -> tuple[float | None, float | None]:
    """Least and greatest value of a number."""
    if parameter.type == "seed":
        return (
            0 if parameter.minimum is None else parameter.minimum,
            MAX_SEED if parameter.maximum is None else parameter.maximum,
        )
    return parameter.minimum, parameter.maximum


def _number(parameter: Parameter, given: object) -> int | float:
    whole = parameter.type != "float"
    what = "an integer" if whole else "a number"
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise expected(what, given)
    if not math.isfinite(given):
        raise WrongValue(FieldErrorType.OUT_OF_RANGE, f"must be {what}, not infinite")
    if whole and isinstance(given, float):
        if not given.is_integer():
            raise WrongValue(FieldErrorType.TYPE_ERROR, "must be an integer, not a fraction")
        given = int(given)
    low, high = bounds(parameter)
    if (low is not None and given < low) or (high is not None and given > high):
        allowed = f"{'' if low is None else low}..{'' if high is None else high}"
        raise WrongValue(FieldErrorType.OUT_OF_RANGE, f"must be {allowed}")
    if parameter.multiple and given % parameter.multiple:
        raise WrongValue(FieldErrorType.OUT_OF_RANGE, f"must be a multiple of {parameter.multiple}")
    return given
