"""What nodes give for a person: files by name, and texts, under whatever keys the nodes invent."""

from __future__ import annotations

import msgspec

from reverie_comfy_bridge.wire.values import as_mapping, as_sequence

MAX_OUTPUT_TEXT_CHARS = 1_000_000


class OutputFile(msgspec.Struct, frozen=True):
    """A file that a node saved, as `/view` wants it: `folder_type` is `output`, `temp` or `input`.

    `kind` is the node's own key: `images`, `gifs`, `audio`, `video`, `3d` and others.
    """

    node: str
    kind: str
    filename: str
    subfolder: str = ""
    folder_type: str = "output"


class OutputText(msgspec.Struct, frozen=True):
    """A text that a node gave."""

    node: str
    kind: str
    text: str


class NodeOutputs(msgspec.Struct, frozen=True):
    """Files and texts in the order in which they were given."""

    files: tuple[OutputFile, ...] = ()
    texts: tuple[OutputText, ...] = ()


def read_outputs(value: object) -> NodeOutputs:
    """The `outputs` of a history entry: those of all its nodes."""
    nodes = [read_node_outputs(node, given) for node, given in as_mapping(value).items()]
    return NodeOutputs(
        tuple(file for node in nodes for file in node.files),
        tuple(text for node in nodes for text in node.texts),
    )


def read_node_outputs(node: str, value: object) -> NodeOutputs:
    """What one node gave: every list of objects with a `filename`, and every list of texts."""
    files: list[OutputFile] = []
    texts: list[OutputText] = []
    for kind, given in as_mapping(value).items():
        for item in as_sequence(given) or [given]:
            if isinstance(item, str) and isinstance(given, list):
                texts.append(OutputText(node, kind, item[:MAX_OUTPUT_TEXT_CHARS]))
            elif (file := _read_file(node, kind, item)) is not None:
                files.append(file)
    return NodeOutputs(tuple(files), tuple(texts))


def _read_file(node: str, kind: str, value: object) -> OutputFile | None:
    given = as_mapping(value)
    filename, subfolder, folder_type = given.get("filename"), given.get("subfolder"), given.get("type")
    if not isinstance(filename, str) or not filename:
        return None
    return OutputFile(
        node=node,
        kind=kind,
        filename=filename,
        subfolder=subfolder if isinstance(subfolder, str) else "",
        folder_type=folder_type if isinstance(folder_type, str) and folder_type else "output",
    )
