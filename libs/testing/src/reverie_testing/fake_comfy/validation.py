"""What POST /prompt finds wrong with a graph, in ComfyUI's own error types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reverie_testing.fake_comfy.features import Features
from reverie_testing.fake_comfy.files import Files, annotated
from reverie_testing.fake_comfy.nodes import NodeClass, Spec, choices
from reverie_testing.fake_comfy.order import Graph, links

Error = dict[str, Any]
#: Longer lists of choices are not repeated in an error.
LIST_SHOWN = 20
CONVERSIONS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass(frozen=True)
class Verdict:
    """A graph's validation: what is wrong with the whole, or which outputs run, and what is wrong with nodes."""

    error: Error | None
    outputs: list[str]
    node_errors: dict[str, Any] = field(default_factory=dict)


def error(kind: str, message: str, details: str = "", **extra: Any) -> Error:
    """One error as ComfyUI tells it."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


@dataclass
class Validation:
    """The check of one graph; values are converted in place, as ComfyUI does."""

    graph: Graph
    classes: dict[str, NodeClass]
    files: Files
    features: Features
    #: Per node that was looked at: whether it and all before it are right, and its own errors.
    _seen: dict[str, tuple[bool, list[Error]]] = field(default_factory=dict)

    def verdict(self) -> Verdict:
        """Check it; AttributeError or TypeError for what is no graph (500 there)."""
        outputs = []
        for node_id, node in self.graph.items():
            if (missing := self._class_error(node_id, node)) is not None:
                return Verdict(missing, [])
            if self.classes[node["class_type"]].output_node:
                outputs.append(node_id)
        if not outputs:
            return Verdict(error("prompt_no_outputs", "Prompt has no outputs"), [])
        good, node_errors, details = [], dict[str, Any](), []
        for output in outputs:
            if self._cyclic(output, []) or not self._node(output)[0]:
                details += [f"{e['message']}: {e['details']}" for e in self._seen.get(output, (True, []))[1]]
                self._blame(output, node_errors)
            else:
                good.append(output)
        if good:
            return Verdict(None, good, node_errors)
        message = "Prompt outputs failed validation"
        return Verdict(
            error("prompt_outputs_failed_validation", message, "\n".join(details)), [], node_errors
        )

    def _class_error(self, node_id: str, node: Any) -> Error | None:
        name = node.get("class_type")
        if name in self.classes:
            return None
        title = node.get("_meta", {}).get("title") or name
        where = f"Node ID '#{node_id}'"
        if not self.features.missing_node_type:
            if name is None:
                message = "Cannot execute because a node is missing the class_type property."
            else:
                message = f"Cannot execute because node {name} does not exist."
            return error("invalid_prompt", message, where)
        if name is None:
            what = "has no class_type. The workflow may be corrupted or a custom node is missing."
        else:
            what = "not found. The custom node may not be installed."
        extra = {"node_id": node_id, "class_type": name, "node_title": title}
        message = f"Node '{title or f'ID #{node_id}'}' {what}"
        return error("missing_node_type", message, where, **extra)

    def _blame(self, output: str, node_errors: dict[str, Any]) -> None:
        for node_id, (valid, errors) in self._seen.items():
            if not valid and errors:
                name = self.graph[node_id]["class_type"]
                blamed = node_errors.setdefault(
                    node_id, {"errors": errors, "dependent_outputs": [], "class_type": name}
                )
                blamed["dependent_outputs"].append(output)

    def _cyclic(self, node_id: str, path: list[str]) -> bool:
        if node_id not in self.graph or "inputs" not in self.graph[node_id]:
            return False
        if node_id in path:
            circle = path[path.index(node_id) :]
            told = " -> ".join(f"{name} ({self.graph[name]['class_type']})" for name in [*circle, node_id])
            for name in circle:
                extra = {"node_id": name, "cycle_nodes": circle}
                found = error("dependency_cycle", "Dependency cycle detected", told, **extra)
                # Without a check it is refused all the same, but nobody says why.
                self._seen[name] = (False, [found] if self.features.cycle_check else [])
            return True
        return any(self._cyclic(source, [*path, node_id]) for source in links(self.graph[node_id]))

    def _node(self, node_id: str) -> tuple[bool, list[Error]]:
        if node_id not in self._seen:
            try:
                self._seen[node_id] = self._inputs(node_id)
            except (KeyError, IndexError) as broken:
                self._seen[node_id] = (False, [failure(type(broken).__name__, str(broken))])
        return self._seen[node_id]

    def _inputs(self, node_id: str) -> tuple[bool, list[Error]]:
        node = self.graph[node_id]
        inputs, known = node["inputs"], self.classes[node["class_type"]]
        errors: list[Error] = []
        valid = True
        for name, spec in known.inputs().items():
            if name not in inputs:
                if name in known.required:
                    message = "Required input is missing"
                    errors.append(error("required_input_missing", message, name, input_name=name))
            elif isinstance(inputs[name], list):
                found = self._link(name, spec, inputs[name])
                errors += found
                if not found:
                    valid &= self._node(inputs[name][0])[0]
            else:
                errors += self._value(node["class_type"], inputs, name, spec)
        return valid and not errors, errors

    def _link(self, name: str, spec: Spec, value: list[Any]) -> list[Error]:
        about = {"input_name": name, "input_config": shown(spec)}
        if len(value) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return [error("bad_linked_input", message, name, **about, received_value=value)]
        outputs = self.classes[self.graph[value[0]]["class_type"]].outputs
        if int(value[1]) >= len(outputs):
            raise IndexError("tuple index out of range")
        received = outputs[int(value[1])]
        if received == spec[0]:
            return []
        details = f"{name}, received_type({received}) mismatch input_type({spec[0]})"
        message = "Return type mismatch between linked nodes"
        about |= {"received_type": received, "linked_node": value}
        return [error("return_type_mismatch", message, details, **about)]

    def _value(  # noqa: PLR0911 -- one per kind of error
        self, class_type: str, inputs: dict[str, Any], name: str, spec: Spec
    ) -> list[Error]:
        kind, options = shown(spec)
        value = inputs[name]
        about = {"input_name": name, "input_config": [kind, options], "received_value": value}
        if class_type == "LoadImage" and name == "image":
            if annotated(str(value)) in self.files.kept:
                return []
            details = f"{name} - Invalid image file: {value}"
            message = "Custom validation failed for node"
            return [error("custom_validation_failed", message, details, input_name=name)]
        if (known := choices(spec)) is not None:
            if value in known:
                return []
            listed = f"(list of length {len(known)})" if len(known) > LIST_SHOWN else str(known)
            if len(known) > LIST_SHOWN:
                about["input_config"] = None
            details = f"{name}: {value!r} not in {listed}"
            return [error("value_not_in_list", "Value not in list", details, **about)]
        try:
            value = inputs[name] = CONVERSIONS[kind](value) if kind in CONVERSIONS else value
        except (ValueError, TypeError) as wrong:
            message = f"Failed to convert an input value to a {kind} value"
            about["exception_message"] = str(wrong)
            return [error("invalid_input_type", message, f"{name}, {value}, {wrong}", **about)]
        about["received_value"] = value
        if "min" in options and value < options["min"]:
            message = f"Value {value} smaller than min of {options['min']}"
            return [error("value_smaller_than_min", message, name, **about)]
        if "max" in options and value > options["max"]:
            message = f"Value {value} bigger than max of {options['max']}"
            return [error("value_bigger_than_max", message, name, **about)]
        return []


def shown(spec: Spec) -> Spec:
    """A spec with its options, also if there are none."""
    return [spec[0], spec[1] if len(spec) > 1 else {}]


def failure(kind: str, details: str) -> Error:
    """An exception in ComfyUI's own check."""
    extra = {"exception_type": kind, "traceback": []}
    return error("exception_during_validation", "Exception when validating node", details, **extra)
