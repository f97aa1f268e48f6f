"""From TOML files to checked structures, with errors that name the file and the key."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from edged.base.errors import ConfigError, MissingFileError
from edged.base.files import read_bounded

if TYPE_CHECKING:  # each command reads one kind of file, and a hundred structures take their time
    from edged.config.aggregator import AggregatorConfig
    from edged.config.board import BoardConfig
    from edged.config.hub import HubConfig

_Type = TypeVar("_Type")
_Info = msgspec.inspect.Type
_LIMIT = 256 * 1024
_DEEPEST = 16
_LONG_KEY = re.compile(
    r"""(?:^|[{,])[ \t\[]*+(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){16}""", re.MULTILINE
)
"""A key of so many names: tomllib takes minutes over thousands of them."""

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


def load_board(path: Path) -> BoardConfig:
    """Read a board's configuration: see :func:`_load`."""
    from edged.config.board import BoardConfig  # noqa: PLC0415  as above

    return _load(path, BoardConfig).resolved(path.parent.absolute())


def load_hub(path: Path) -> HubConfig:
    """Read a hub's configuration: see :func:`_load`."""
    from edged.config.hub import HubConfig  # noqa: PLC0415  as above

    return _load(path, HubConfig).resolved(path.parent.absolute())


def load_aggregator(path: Path) -> AggregatorConfig:
    """Read an aggregator's configuration: see :func:`_load`."""
    from edged.config.aggregator import AggregatorConfig  # noqa: PLC0415  as above

    return _load(path, AggregatorConfig).resolved(path.parent.absolute())


def _load(path: Path, wanted: type[_Type]) -> _Type:
    """Read a configuration, with every ``<path>.d/*.toml`` merged over it in the order of their names.

    Tables merge. A ``[[model]]`` of a channel that is there already takes its place, another is added. Paths are
    relative to the main file's directory.

    :raises MissingFileError: a file is absent, or cannot be read.
    :raises ConfigError: a key is unknown, absent, or does not fit.
    """
    files = {file: read_toml(file) for file in config_files(path)}
    merged: dict[str, Any] = {}
    for content in files.values():
        _merge(merged, copy.deepcopy(content))

    def source(steps: Sequence[str]) -> str:
        """Return the file whose word counts for a key; all of them where the key is in none."""
        holding = [file for file, content in files.items() if _holds(content, merged, steps)]
        return str(holding[-1]) if holding and steps else " + ".join(map(str, files))

    return _convert(merged, wanted, source)


def config_files(path: Path) -> list[Path]:
    """Return the files of a configuration, in the order in which they are merged.

    :raises MissingFileError: the main file is absent, or the folder beside it cannot be read.
    """
    folder = path.with_name(f"{path.name}.d")
    try:
        path.stat()
        extras = sorted(file for file in folder.iterdir() if file.name.endswith(".toml"))
    except FileNotFoundError as error:
        if error.filename == str(path):
            raise MissingFileError(
                f"{path} does not exist", hint="name the configuration with --config FILE"
            ) from error
        extras = []
    except OSError as error:
        raise MissingFileError(f"{error.filename} cannot be read: {error.strerror}") from error
    return [path, *extras]


def read_toml(path: Path) -> dict[str, Any]:
    """Read one TOML file.

    :raises ConfigError: it is no TOML, or is nested beyond what any file of edged's is.
    """
    deep = ConfigError(f"{path}: nested more than {_DEEPEST} levels deep", hint="no key of edged's lies that deep")
    try:
        text = read_bounded(path, _LIMIT).decode()
        if _LONG_KEY.search(text):
            raise deep
        content = tomllib.loads(text)
    except RecursionError:
        raise deep from None
    except ValueError as error:  # of TOML, of UTF-8, of dates and numbers
        raise ConfigError(
            f"{path}: not TOML: {error}",
            hint="text stands in quotes, the name of a table in brackets on a line of its own",
        ) from error
    level: list[Any] = [content]
    for _ in range(_DEEPEST):
        level = [below for one in level for below in (one.values() if isinstance(one, dict) else one)]
        level = [below for below in level if isinstance(below, dict | list)]
    if level:
        raise deep
    return content


def convert(value: object, wanted: type[_Type], source: Path | str) -> _Type:
    """Turn what was read from ``source`` into a structure.

    :raises ConfigError: a key is unknown, absent, or does not fit; the message names it.
    """
    return _convert(value, wanted, lambda _: str(source))


def _convert(value: object, wanted: type[_Type], source: Callable[[Sequence[str]], str]) -> _Type:
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        steps, what, hint = _explain(error, value, wanted)
        raise ConfigError(": ".join(filter(None, (source(steps), _dotted(steps), what))), hint=hint) from error
    except ConfigError as error:
        steps = error.message.partition(": ")[0].split(".")
        raise ConfigError(f"{source(steps)}: {error.message}", hint=error.hint) from error


def _explain(error: msgspec.ValidationError, value: object, wanted: type) -> tuple[list[str], str, str | None]:
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


def _dotted(steps: Sequence[str]) -> str:
    return "".join(f"[{step}]" if step.isdecimal() else f".{step}" for step in steps).removeprefix(".")


def _near(name: str, keys: Sequence[str]) -> str | None:
    """Return a hint with the known key that ``name`` comes closest to."""
    import difflib  # noqa: PLC0415  for a typo only

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


def _merge(base: dict[str, Any], extra: dict[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        elif key == "model" and isinstance(value, list) and isinstance(base.get(key), list):
            channels = {_channel(table) for table in value} - {None}
            base[key] = [table for table in base[key] if _channel(table) not in channels] + value
        else:
            base[key] = value


def _channel(table: object) -> str | None:
    channel = table.get("channel") if isinstance(table, dict) else None
    return channel if isinstance(channel, str) else None


def _holds(content: Any, merged: Any, steps: Sequence[str]) -> bool:  # noqa: ANN401  TOML
    """Return True if a file's ``content`` has the value at ``steps`` in ``merged``; in a list, by equality."""
    for step in steps:
        if isinstance(merged, list):
            if not step.isdecimal() or merged[int(step)] not in content:
                return False
            content = merged = merged[int(step)]
        elif not isinstance(content, dict) or step not in content:
            return False
        else:
            content, merged = content[step], merged[step]
    return True
