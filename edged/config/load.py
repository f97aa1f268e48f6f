"""From TOML files to checked structures, with errors that name the file and the key."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edged.config.board import BoardConfig
from edged.errors import ConfigError
from edged.files import read_bounded

_Type = TypeVar("_Type")
_Info = msgspec.inspect.Type
_LIMIT = 1024 * 1024
_AT_PATH = re.compile(r"^(?P<what>.*?)(?: - at `(?P<key>.*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`")


def load_board(path: Path) -> BoardConfig:
    """Read a board's configuration, with every ``<path>.d/*.toml`` merged over it in the order of their names.

    Tables merge. A ``[[model]]`` of a channel that is there already takes its place, another is added. Paths are
    relative to the main file's directory.

    :raises MissingFileError: the file is absent.
    :raises ConfigError: a key is unknown, absent, or does not fit.
    """
    extras = sorted(path.with_name(f"{path.name}.d").glob("*.toml"))
    merged = read_toml(path)
    for extra in extras:
        _merge(merged, read_toml(extra))
    source = " + ".join(map(str, [path, *extras]))
    return convert(merged, BoardConfig, source).resolved(path.parent.absolute())


def read_toml(path: Path) -> dict[str, Any]:
    """Read one TOML file.

    :raises ConfigError: it is no TOML.
    """
    try:
        return tomllib.loads(read_bounded(path, _LIMIT).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def convert(value: object, wanted: type[_Type], source: Path | str) -> _Type:
    """Turn what was read from ``source`` into a structure.

    :raises ConfigError: a key is unknown, absent, or does not fit; the message names it.
    """
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        found = _AT_PATH.match(str(error))
        what, at = (found["what"], (found["key"] or "$")) if found else (str(error), "$")
        where = at.removeprefix("$").removeprefix(".")
        if unknown := _UNKNOWN.match(what):
            key = f"{where}.{unknown['name']}".removeprefix(".")
            raise ConfigError(f"{source}: {key}: unknown key", hint=_near(unknown["name"], wanted, where)) from error
        said = what[:1].lower() + what[1:]
        raise ConfigError(f"{source}: {where}: {said}" if where else f"{source}: {said}") from error
    except ConfigError as error:
        raise ConfigError(f"{source}: {error.message}", hint=error.hint) from error


def _near(name: str, wanted: type, where: str) -> str | None:
    """Return a hint with the known key that ``name`` comes closest to."""
    steps = re.findall(r"[^.\[\]]+|\[\.{3}\]", where)
    keys = _keys_at(wanted, [step for step in steps if not step.isdecimal()])
    close = difflib.get_close_matches(name, keys, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(keys)}" if keys else None


def _keys_at(wanted: type, path: list[str]) -> list[str]:
    """Return the keys of the structure that stands at ``path`` below ``wanted``."""
    info: _Info = msgspec.inspect.type_info(wanted)
    for step in path:
        info = _step(info, step)
    info = _unwrap(info)
    return [field.encode_name for field in info.fields] if isinstance(info, msgspec.inspect.StructType) else []


def _unwrap(info: _Info) -> _Info:
    """Return the structure inside an optional type, a list, or nothing of the kind."""
    if isinstance(info, msgspec.inspect.UnionType):
        return next((_unwrap(one) for one in info.types if not isinstance(one, msgspec.inspect.NoneType)), info)
    if isinstance(info, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        return _unwrap(info.item_type)
    return info


def _step(info: _Info, step: str) -> _Info:
    """Return what stands below ``info`` under a key; msgspec calls any key of a dictionary ``[...]``."""
    info = _unwrap(info)
    if isinstance(info, msgspec.inspect.DictType):
        return info.value_type
    if isinstance(info, msgspec.inspect.StructType):
        return next((field.type for field in info.fields if field.encode_name == step), info)
    return info


def _merge(base: dict[str, Any], extra: dict[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        elif key == "model" and isinstance(value, list) and isinstance(base.get(key), list):
            channels = {table.get("channel") for table in value if isinstance(table, dict)}
            base[key] = [table for table in base[key] if table.get("channel") not in channels] + value
        else:
            base[key] = value
