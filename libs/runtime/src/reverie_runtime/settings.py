"""Settings: one typed tree per service, resolved once from a TOML file and the environment.

A service declares a `msgspec.Struct` of sections, each a Struct of keys; descriptions go into
`Annotated[..., msgspec.Meta(description=...)]`.  The environment (`REVERIE_<SECTION>__<KEY>`) wins over the file;
an empty variable counts as absent, as compose files make them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta
from msgspec import inspect as schema

PREFIX: Final = "REVERIE_"
#: Names the TOML file; not a setting itself.
CONFIG_VARIABLE: Final = "REVERIE_CONFIG"

T = TypeVar("T", bound=msgspec.Struct)


class SettingsError(Exception):
    """One sentence naming the key and what is allowed.  Values are not repeated: they may be secrets."""


class NatsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the bus is."""

    url: Annotated[
        str, Meta(min_length=1, description="NATS server; several of one cluster separated by commas")
    ] = "nats://127.0.0.1:4222"


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is logged, to standard error."""

    format: Annotated[
        Literal["auto", "console", "json"],
        Meta(description="`auto` is `console` on a terminal and `json` elsewhere"),
    ] = "auto"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least level that is logged")
    ] = "info"


class HealthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where `/health`, `/ready` and `/metrics` are served."""

    host: Annotated[str, Meta(description="Address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one")] = 4201


class DrainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a service stops."""

    deadline_s: Annotated[
        float, Meta(ge=0, description="Seconds that work in progress gets to finish after SIGTERM")
    ] = 30.0


class _Given(NamedTuple):
    """A value, and what to call it in a complaint."""

    value: Any
    name: str
    is_text: bool


def load_settings(
    kind: type[T],
    *,
    config: Path | None,
    environ: Mapping[str, str],
    tolerated_sections: Collection[str] = (),
) -> T:
    """The resolved tree; SettingsError for an unknown key, a wrong type, or a missing value.

    `tolerated_sections` may be in the file or the environment although `kind` does not have them: other services'.
    """
    given = dict(_from_file(config)) | dict(_from_environment(environ))
    sections = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for path, item in given.items():
        if path[0] in sections:
            _require_known(sections[path[0]].type, path, item)
        elif path[0] not in tolerated_sections:
            raise SettingsError(f"{item.name}: there is no section {path[0]!r}, only {_join(sections)}")
    values = {field.name: _section(field, given) for field in sections.values()}
    try:
        return kind(**values)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def document_settings(kind: type[msgspec.Struct]) -> str:
    """The tree as a Markdown table."""
    rows = ["| key | environment | type | default | meaning |", "|---|---|---|---|---|"]
    for section in msgspec.structs.fields(kind):
        for field in msgspec.structs.fields(section.type):
            key = f"{section.encode_name}.{field.encode_name}"
            value = _default(section, field)
            default = "required" if value is msgspec.NODEFAULT else f"`{value!r}`"
            allowed = describe(field.type).replace("|", "\\|")
            cells = (f"`{key}`", f"`{variable(key)}`", allowed, default, _meaning(field.type))
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def variable(key: str) -> str:
    """The environment variable of `section.key`."""
    return PREFIX + key.upper().replace(".", "__")


def describe(kind: Any) -> str:
    """What values a type allows, in words."""
    return _words(schema.type_info(kind))


def _from_file(config: Path | None) -> Iterator[tuple[tuple[str, str], _Given]]:
    if config is None:
        return
    try:
        tables = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{config}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config}: is not TOML: {error}") from None
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise SettingsError(f"{section} in {config}: keys belong into a [section]")
        for key, value in table.items():
            yield (section, key), _Given(value, f"{section}.{key} in {config}", is_text=False)


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[tuple[str, str], _Given]]:
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE or not value:
            continue
        section, separator, key = name.removeprefix(PREFIX).lower().partition("__")
        if not separator:
            raise SettingsError(f"{name}: settings are named {PREFIX}<SECTION>__<KEY>")
        yield (section, key), _Given(value, name, is_text=True)


def _require_known(section: type[msgspec.Struct], path: tuple[str, str], item: _Given) -> None:
    keys = [field.encode_name for field in msgspec.structs.fields(section)]
    if path[1] not in keys:
        raise SettingsError(f"{item.name}: there is no key {path[1]!r} in {path[0]!r}, only {_join(keys)}")


def _section(section: msgspec.structs.FieldInfo, given: Mapping[tuple[str, str], _Given]) -> msgspec.Struct:
    fields = msgspec.structs.fields(section.type)
    paths = {field.name: (section.encode_name, field.encode_name) for field in fields}
    values = {
        field.name: _converted(field.type, given[paths[field.name]])
        for field in fields
        if paths[field.name] in given
    }
    for field in fields:
        default = _default(section, field)
        if field.name not in values and default is msgspec.NODEFAULT:
            key = ".".join(paths[field.name])
            raise SettingsError(f"{key} ({variable(key)}) is required: {describe(field.type)}")
        values.setdefault(field.name, default)
    try:
        tree: msgspec.Struct = section.type(**values)
    except ValueError as error:
        raise SettingsError(f"section {section.encode_name!r}: {error}") from None
    return tree


def _converted(kind: Any, item: _Given) -> Any:
    value = item.value
    if item.is_text and _is_list(kind):
        value = [part.strip() for part in value.split(",")]
    try:
        return msgspec.convert(value, kind, strict=not item.is_text)
    except msgspec.ValidationError:
        got = "this text" if item.is_text else f"a {type(value).__name__}"
        raise SettingsError(f"{item.name}: wants {describe(kind)}, {got} is not allowed") from None


def _is_list(kind: Any) -> bool:
    info = schema.type_info(kind)
    if isinstance(info, schema.Metadata):
        info = info.type
    return isinstance(info, (schema.ListType, schema.VarTupleType, schema.SetType, schema.FrozenSetType))


def _words(info: schema.Type) -> str:
    match info:
        case schema.Metadata():
            words = _words(info.type)
        case schema.BoolType():
            words = "true or false"
        case schema.IntType():
            words = "an integer" + _range(info)
        case schema.FloatType():
            words = "a number" + _range(info)
        case schema.StrType():
            words = "text" + (f" matching {info.pattern}" if info.pattern else "")
        case schema.LiteralType():
            words = "one of " + ", ".join(map(str, info.values))
        case schema.UnionType():
            parts = (part for part in info.types if not isinstance(part, schema.NoneType))
            words = " or ".join(map(_words, parts))
        case schema.ListType() | schema.VarTupleType() | schema.SetType() | schema.FrozenSetType():
            words = f"a list of {_words(info.item_type)}"
        case _:
            words = type(info).__name__.removesuffix("Type").lower()
    return words


def _range(info: schema.IntType | schema.FloatType) -> str:
    bounds = (("at least", info.ge), ("above", info.gt), ("at most", info.le), ("below", info.lt))
    words = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
    return f" {words}" if words else ""


def _meaning(kind: Any) -> str:
    info = schema.type_info(kind)
    extra = (info.extra_json_schema or {}) if isinstance(info, schema.Metadata) else {}
    return str(extra.get("description", ""))


def _default(section: msgspec.structs.FieldInfo, key: msgspec.structs.FieldInfo) -> Any:
    """NODEFAULT if the key is required.  A service may give a shared section defaults of its own."""
    tree = _own_default(section)
    return _own_default(key) if tree is msgspec.NODEFAULT else getattr(tree, key.name)


def _own_default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _join(names: Collection[str]) -> str:
    return ", ".join(names) or "none"
