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
_LIMIT = 256 * 1024
_DEEPEST = 16
_LONG_KEY = re.compile(
    r"""(?:^|[{,])[ \t\[]*+(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){16}""", re.MULTILINE
)
"""A key of so many names: tomllib takes minutes over thousands of them."""


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

    :raises MissingFileError: the file is absent.
    :raises ConfigError: a key is unknown, absent, or does not fit.
    """
    if not path.exists():
        raise MissingFileError(f"{path} does not exist", hint="name the configuration with --config FILE")
    extras = sorted(path.with_name(f"{path.name}.d").glob("*.toml"))
    files = {file: read_toml(file) for file in (path, *extras)}
    merged: dict[str, Any] = {}
    for content in files.values():
        _merge(merged, copy.deepcopy(content))

    def source(steps: Sequence[str]) -> str:
        """Return the file whose word counts for a key; all of them where the key is in none."""
        holding = [file for file, content in files.items() if _holds(content, merged, steps)]
        return str(holding[-1]) if holding and steps else " + ".join(map(str, files))

    return _convert(merged, wanted, source)


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
        from edged.config.mistakes import explain  # noqa: PLC0415  most files have none

        steps, what, hint = explain(error, value, wanted)
        raise ConfigError(": ".join(filter(None, (source(steps), _dotted(steps), what))), hint=hint) from error
    except ConfigError as error:
        steps = error.message.partition(": ")[0].split(".")
        raise ConfigError(f"{source(steps)}: {error.message}", hint=error.hint) from error


def _dotted(steps: Sequence[str]) -> str:
    return "".join(f"[{step}]" if step.isdecimal() else f".{step}" for step in steps).removeprefix(".")


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
