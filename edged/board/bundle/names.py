"""What of a board is to be masked: found in its configuration, and in what was gathered."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from edged.base.errors import EdgedError
from edged.base.files import read_bounded
from edged.board.bundle.redact import MASKED, Redactor
from edged.broker import Address
from edged.config.board import BoardConfig, BrokerTable
from edged.config.load import load_board
from edged.config.secret import read_secret

_PEOPLE = range(1000, 60_000)
_LARGEST = 64 * 1024
_QUOTED = re.compile(r"\"([^\"\n]{4,})\"|'([^'\n]{4,})'")
_HOST = re.compile(r".*?://(?:[^@/]*@)?([^:/]*).*")
_NAMING = {"topic": "topic", "EDGED_TOPIC": "topic", "EDGED_DEVICE": "board"}
"""Names in what was gathered whose values strangers chose."""


def learn_board(redactor: Redactor, path: Path) -> BoardConfig | None:
    """Have ``redactor`` mask the names and secrets of the board that ``path`` configures; return that configuration.

    Where it cannot be used, anything that it quotes is masked, and nothing is returned.
    """
    host = socket.gethostname()
    redactor.add_names("host", dict.fromkeys((host, host.split(".")[0])))
    redactor.add_names("user", _people())
    try:
        config = load_board(path)
    except EdgedError:
        quoted = _quoted(path)
        redactor.add_names("text", [*quoted, *filter(None, (_HOST.sub(r"\1", one) for one in quoted if "://" in one))])
        redactor.add_filters(one for one in quoted if "+" in one)
        return None
    brokers = [broker for broker in (config.broker, config.uplink) if broker is not None]
    for broker in brokers:
        with suppress(EdgedError):
            redactor.add_names("host", [Address.parse(broker.url).host])
        redactor.add_names("user", filter(None, [broker.username]))
    for model in config.model:
        redactor.add_filters(model.filters)
    redactor.add_names("topic", [config.results.prefix])
    redactor.add_names("board", [config.device.name])
    for reference in _references(config, brokers):
        _learn_secret(redactor, reference)
    return config


def learn_gathered(redactor: Redactor, gathered: Any) -> None:  # noqa: ANN401  what JSON holds
    """Have ``redactor`` mask the names that strangers chose, wherever else they stand."""
    for name, value in _members(gathered):
        if name in _NAMING and isinstance(value, str):
            redactor.add_names(_NAMING[name], [value])


def shown(config: BoardConfig) -> dict[str, Any]:
    """Return the configuration without what may be a secret although it should only refer to one."""
    tables: dict[str, Any] = msgspec.to_builtins(config)
    for table, names in (
        ("broker", ("key", "password")),
        ("uplink", ("key", "password")),
        ("keystore", ("wrap", "pin")),
    ):
        for name in names:
            if tables[table] and tables[table][name] and not _is_reference(tables[table][name]):
                tables[table][name] = MASKED
    for delegate in tables["runtime"]["delegates"].values():
        delegate["options"] = dict.fromkeys(delegate["options"], MASKED)
    return tables


def _references(config: BoardConfig, brokers: Iterable[BrokerTable]) -> Iterator[str]:
    found = [config.keystore.wrap, config.keystore.pin]
    for broker in brokers:
        found += [broker.password, broker.key]
    yield from filter(None, found)


def _is_reference(text: str) -> bool:
    return text.startswith("credential:") or Path(text).is_file()


def _learn_secret(redactor: Redactor, reference: str) -> None:
    """Mask what a reference leads to; one that names no file may be the secret itself, by mistake."""
    with suppress(EdgedError):
        if not _is_reference(reference):
            redactor.add_secret(Path(reference).name.encode())
        elif reference.startswith("credential:"):
            redactor.add_secret(read_secret(reference))
        else:
            redactor.add_secret(read_bounded(Path(reference), _LARGEST).strip())


def _people() -> list[str]:
    found = [os.environ.get("SUDO_USER", "")]
    with suppress(OSError, ValueError, IndexError):
        entries = (line.split(":") for line in Path("/etc/passwd").read_text().splitlines())
        found += [entry[0] for entry in entries if int(entry[2]) in _PEOPLE]
    return found


def _quoted(path: Path) -> list[str]:
    found: list[str] = []
    for file in (path, *sorted(path.with_name(f"{path.name}.d").glob("*.toml"))):
        with suppress(OSError, UnicodeDecodeError):
            found += [one or other for one, other in _QUOTED.findall(file.read_text())]
    return found


def _members(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  what JSON holds
    if isinstance(value, dict):
        yield from value.items()
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _members(one)
