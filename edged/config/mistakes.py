"""From what msgspec says of a value that does not fit, to the key, what is wrong with it, and what may help."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from edged.base.errors import ConfigError

_Info = msgspec.inspect.Type
_AT_PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$?\.?(?P<path>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"[^.\[\]]+|\[\.{3}\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")
_WRITTEN = {
    msgspec.inspect.StrType: "text stands in quotes",
    msgspec.inspect.IntType: "a whole number, without quotes",
    msgspec.inspect.FloatType: "a number, without quotes",
    msgspec.inspect.BoolType: "true or false, without quotes",
    msgspec.inspect.VarTupleType: "a list stands in brackets",
    msgspec.inspect.StructType: "a table: its keys stand below its name in brackets",
}
_ANY_KEY = "[...]"  # what msgspec calls every key of a dictionary


def explain(error: msgspec.ValidationError, value: object, wanted: type) -> tuple[list[str], str, str | None]:
    """Return the key that msgspec complains about, what is wrong with it, and what may help."""
    found = _AT_PATH.match(str(error))
    what, path = (found["what"], found["path"] or "") if found else (str(error), "")
    steps = _with_keys(_STEP.findall(path), str(error), value, wanted)
    info = _info_at(wanted, steps)
    if unknown := _UNKNOWN.match(what):
        return [*steps, unknown["name"]], "unknown key", _near(unknown["name"], _keys(info))
    if missing := _MISSING.match(what):
        return [*steps, missing["name"]], "is missing", "it has no default"
    info, what = _needed(info), what.replace(" | null", "")
    hint = _WRITTEN.get(type(info))
    if isinstance(info, msgspec.inspect.LiteralType):
        hint = f"one of {', '.join(map(str, info.values))}"
    elif isinstance(info, msgspec.inspect.FloatType) and "got `object`" in what:
        hint = "a key that holds a dot stands in quotes"
    return steps, what[:1].lower() + what[1:], hint


def _with_keys(steps: list[str], complaint: str, value: Any, wanted: type) -> list[str]:  # noqa: ANN401  TOML
    """Return ``steps`` with the dictionary key that msgspec leaves out: the one that alone brings the complaint."""
    if _ANY_KEY not in steps:
        return steps
    at = steps.index(_ANY_KEY)
    table = copy.deepcopy(value)
    where = table
    for step in steps[:at]:
        where = where[int(step) if isinstance(where, list) else step]
    for key, item in list(where.items()):
        where.clear()
        where[key] = item
        try:
            msgspec.convert(table, wanted)
        except msgspec.ValidationError as error:
            if str(error) == complaint:
                return [*steps[:at], key, *steps[at + 1 :]]
        except ConfigError:
            pass  # of another key
    return steps


def _near(name: str, keys: Sequence[str]) -> str | None:
    """Return a hint with the known key that ``name`` comes closest to."""
    close = difflib.get_close_matches(name, keys, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(keys)}" if keys else None


def _keys(info: _Info) -> list[str]:
    info = _unwrap(info)
    return [field.encode_name for field in info.fields] if isinstance(info, msgspec.inspect.StructType) else []


def _info_at(wanted: type, steps: Sequence[str]) -> _Info:
    """Return the type at ``steps`` below ``wanted``."""
    info: _Info = msgspec.inspect.type_info(wanted)
    for step in steps:
        info = _step(info, step)
    return info


def _needed(info: _Info) -> _Info:
    """Return the type inside an optional type."""
    if isinstance(info, msgspec.inspect.UnionType):
        needed = [one for one in info.types if not isinstance(one, msgspec.inspect.NoneType)]
        return needed[0] if len(needed) == 1 else info
    return info


def _unwrap(info: _Info) -> _Info:
    """Return the structure inside an optional type, a list, or nothing of the kind."""
    if isinstance(info, msgspec.inspect.UnionType):
        return next((_unwrap(one) for one in info.types if not isinstance(one, msgspec.inspect.NoneType)), info)
    if isinstance(info, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        return _unwrap(info.item_type)
    return info


def _step(info: _Info, step: str) -> _Info:
    """Return the type below ``info`` under a key or an index."""
    if isinstance(info, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        return info.item_type
    info = _unwrap(info)
    if isinstance(info, msgspec.inspect.DictType):
        return info.value_type
    if isinstance(info, msgspec.inspect.StructType):
        return next((field.type for field in info.fields if field.encode_name == step), info)
    return info
