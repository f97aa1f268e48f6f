"""Masks for a support bundle: secrets always, names by stand-ins that stay the same, so that a story can be told."""

from __future__ import annotations

import base64
import ipaddress
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
from edged.broker import Address
from edged.config.board import BoardConfig, BrokerTable
from edged.config.load import load_board
from edged.config.secret import read_secret

MASKED = "<masked>"
_SHORT = 5
"""Shorter names and secrets are masked only as whole words."""
_SHORTEST = 4
"""Bytes: shorter secrets are not worth masking, and would mask ordinary text."""
_COMMON = frozenset(
    {"", "localhost", "127.0.0.1", "::1", "edged", "root", "pi", "raspberrypi", "debian", "ubuntu", "admin", "user"}
)
"""Common names that identify nobody."""
_PEM = re.compile(r"-----BEGIN [^-]+-----.*?(?:-----END [^-]+-----|\Z)", re.DOTALL)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_VALUE = re.compile(r"(?i)\b((?:pass(?:word|wd|phrase)?|pin|pin-value|token|secret)=)(?:\"[^\"]*\"|[^\s;&]+)")
_ADDRESS = re.compile(
    r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)|(?<![\w.:])[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?![\w:])"
)


class Redactor:
    """Masks text.

    :param with_names: do not mask names and addresses; secrets are masked all the same.
    """

    def __init__(self, *, with_names: bool = False) -> None:
        self._with_names = with_names
        self._masks: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._secrets: set[str] = set()
        self._secret: re.Pattern[str] | None = None
        self._topics: list[re.Pattern[str]] = []
        self._pattern: re.Pattern[str] | None = None

    def add_secret(self, secret: bytes) -> None:
        """Mask a secret, as it is and as it is often written."""
        if len(secret) >= _SHORTEST:
            self._secrets.update((secret.decode(errors="replace"), secret.hex(), base64.b64encode(secret).decode()))
            longest_first = sorted(self._secrets, key=len, reverse=True)
            self._secret = re.compile("|".join(map(_bounded, longest_first)))

    def add_names(self, kind: str, names: Iterable[str]) -> None:
        """Mask names: ``<host-1>`` and so on."""
        for name in names:
            if name.lower() not in _COMMON and name.lower() not in self._masks:
                self._masks[name.lower()] = f"<{kind}-{self._number(kind)}>"
                self._pattern = None

    def add_filters(self, filters: Iterable[str]) -> None:
        """Mask topic filters, and the topics that match them."""
        self.add_names("topic", filters)
        for levels in (one.split("/") for one in filters):
            if "+" in levels and set(levels) != {"+"}:
                inner = len(levels) - 1
                parts = [
                    re.escape(level) if level != "+" else r"[^/\n]+" if 0 < at < inner else r"[^/\s]+"
                    for at, level in enumerate(levels)
                ]
                self._topics.append(re.compile("/".join(parts)))

    def _number(self, kind: str) -> int:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return self._counts[kind]

    def text(self, text: str) -> str:
        """Return ``text`` with added names and secrets masked, and everything that looks like a secret."""
        text = _PEM.sub(MASKED, text)
        if self._secret is not None:
            text = self._secret.sub(MASKED, text)
        text = _LOGIN.sub(f"{MASKED}@", text)
        text = _VALUE.sub(rf"\1{MASKED}", text)
        if self._with_names:
            return text
        for topic in self._topics:
            text = topic.sub(lambda found: self._mask_of("topic", found[0]), text)
        if self._masks:
            text = self._compiled().sub(lambda found: self._masks[found[0].lower()], text)
        return _ADDRESS.sub(_masked_address, text)

    def tree(self, value: Any) -> Any:  # noqa: ANN401  what JSON holds
        """Return a JSON value with each string in it masked."""
        match value:
            case str():
                return self.text(value)
            case list() | tuple():
                return [self.tree(one) for one in value]
            case dict():
                return {self.text(str(name)): self.tree(one) for name, one in value.items()}
        return value

    def _mask_of(self, kind: str, name: str) -> str:
        self.add_names(kind, [name])
        return self._masks.get(name.lower(), name)

    def _compiled(self) -> re.Pattern[str]:
        if self._pattern is None:
            longest_first = sorted(self._masks, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(_bounded, longest_first)), re.IGNORECASE)
        return self._pattern


def _bounded(name: str) -> str:
    escaped = re.escape(name)
    return escaped if len(name) >= _SHORT else rf"(?<![A-Za-z0-9]){escaped}(?![A-Za-z0-9])"


def _masked_address(found: re.Match[str]) -> str:
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:
        return found[0]
    return found[0] if address.is_loopback or address.is_unspecified else "<address>"


_PEOPLE = range(1000, 60_000)
_LARGEST = 64 * 1024
_QUOTED = re.compile(r"\"([^\"\n]{4,})\"|'([^'\n]{4,})'")
_HOST = re.compile(r".*?://(?:[^@/]*@)?([^:/]*).*")
_NAMING = {"topic": "topic", "EDGED_TOPIC": "topic", "EDGED_DEVICE": "board"}
"""Gathered fields whose values strangers chose."""


def learn_board(redactor: Redactor, path: Path) -> BoardConfig | None:
    """Teach ``redactor`` the names and secrets of the board that ``path`` configures; return the configuration.

    If the configuration cannot be used, all quoted text in it is masked, and None is returned.
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
    """Teach ``redactor`` the names that strangers chose."""
    for name, value in _members(gathered):
        if name in _NAMING and isinstance(value, str):
            redactor.add_names(_NAMING[name], [value])


def shown(config: BoardConfig) -> dict[str, Any]:
    """Return the configuration without values that may be secrets although they should only refer to one."""
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
    """Mask the secret behind a reference; a reference that names no file may be the secret itself, by mistake."""
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
