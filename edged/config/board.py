"""A board's configuration: what is true of this board and site. Every key of ``edged.toml`` with its default."""

from __future__ import annotations

import math
import re
import socket
from pathlib import Path
from typing import Literal

import msgspec

from edged.config.names import check_name
from edged.config.units import check_quantity, parse_duration, parse_size
from edged.errors import ConfigError

RESERVED_CHANNELS = frozenset({"announce", "nonce", "status"})

_LEVEL = r"(?:\+|[^+#/\0]*)"
_TOPIC_FILTER = re.compile(rf"(?!\Z){_LEVEL}(?:/{_LEVEL})*")

Format = Literal["json", "text", "csv", "cbor", "f32le"]
Each = Literal["row", "rows", "window"]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: its keys and no others."""


def _host_name() -> str:
    return socket.gethostname().split(".")[0].lower()


class Device(_Table, frozen=True):
    """``[device]``. The name stands in topics; the identity is the key.

    :ivar clock: ``trusted`` where somebody vouches for the clock and the kernel cannot know (a container, an RTC).
    """

    name: str = msgspec.field(default_factory=_host_name)
    state: str = "/var/lib/edged"
    clock: Literal["auto", "trusted"] = "auto"

    def __post_init__(self) -> None:
        check_name("device.name", self.name)


class BrokerTable(_Table, frozen=True):
    """``[broker]``. ``key`` and ``password`` refer to secrets: ``credential:NAME`` or a path (mode 0600)."""

    url: str
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    username: str | None = None
    password: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigError("broker.cert and broker.key go together")


class KeystoreTable(_Table, frozen=True):
    """``[keystore]``. ``wrap`` refers to the secret that private keys are encrypted under at rest."""

    uri: str = "file:"
    wrap: str | None = None


class Publisher(_Table, frozen=True):
    """``[publishers.NAME]``: a publisher's record, and the models that it may sign."""

    key: str
    models: tuple[str, ...]


class Outbox(_Table, frozen=True):
    """``results.outbox``: how many bytes of results may wait for the broker, and for how long."""

    size: str = "64 MB"
    age: str = "7 d"

    def __post_init__(self) -> None:
        check_quantity("results.outbox.size", parse_size, self.size)
        check_quantity("results.outbox.age", parse_duration, self.age)


class Results(_Table, frozen=True):
    """``[results]``.

    :ivar hubs: records of the hubs that can read results.
    :ivar sign: sign each result inside its seal, so that one hub cannot forge for another.
    :ivar rotate: age at which the channel key is replaced.
    """

    hubs: tuple[str, ...]
    prefix: str = "edged"
    sign: bool = False
    rotate: str = "24h"
    outbox: Outbox = Outbox()

    def __post_init__(self) -> None:
        check_quantity("results.rotate", parse_duration, self.rotate)
        if not self.hubs:
            raise ConfigError("results.hubs: nobody could read the results", hint="name at least one hub's record")
        for level in self.prefix.split("/"):
            check_name("results.prefix", level)


class Calibration(_Table, frozen=True):
    """``model.calibrate.CHANNEL``: value * scale + offset, first of all."""

    scale: float = 1.0
    offset: float = 0.0


class ModelConfig(_Table, frozen=True):
    """``[[model]]``: one model in use.

    :ivar fields: JSON pointer (RFC 6901) of each of the manifest's channels.
    :ivar tune: what the publisher lets a site set.
    """

    name: str
    channel: str
    topic: str
    format: Format
    each: Each
    qos: Literal[0, 1] = 1
    sensor: str | None = None
    fields: dict[str, str] = {}
    calibrate: dict[str, Calibration] = {}
    tune: dict[str, float] = {}

    def __post_init__(self) -> None:
        where = f"[[model]] {check_name('model.name', self.name)}"
        check_name(f"{where}: channel", self.channel)
        if self.channel in RESERVED_CHANNELS:
            raise ConfigError(f"{where}: channel: {self.channel!r} is edged's own", hint="choose another name")
        if not _TOPIC_FILTER.fullmatch(self.topic):
            raise ConfigError(
                f"{where}: topic: {self.topic!r} is no topic filter",
                hint="+ stands for one whole level; # is not taken",
            )
        for name, one in self.calibrate.items():
            if not (math.isfinite(one.scale) and math.isfinite(one.offset)):
                raise ConfigError(f"{where}: calibrate.{name}: scale and offset are finite numbers")


class Limits(_Table, frozen=True):
    """``[limits]``: the longest message that is taken."""

    message: str = "1 MB"

    def __post_init__(self) -> None:
        check_quantity("limits.message", parse_size, self.message)


class Runtime(_Table, frozen=True):
    """``[runtime]``.

    :ivar xnnpack: ``auto`` leaves it out for models above 16 MB on tflite-runtime: it would copy their weights.
    """

    engine: Literal["auto", "litert", "tflite"] = "auto"
    xnnpack: Literal["auto", "on", "off"] = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConfigError("runtime.threads: at least 1")


class Log(_Table, frozen=True):
    """``[log]``."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class BoardConfig(_Table, frozen=True):
    """The whole file."""

    broker: BrokerTable
    results: Results
    device: Device = msgspec.field(default_factory=Device)
    keystore: KeystoreTable = KeystoreTable()
    publishers: dict[str, Publisher] = {}
    model: tuple[ModelConfig, ...] = ()
    limits: Limits = Limits()
    runtime: Runtime = Runtime()
    log: Log = Log()

    def __post_init__(self) -> None:
        channels = [model.channel for model in self.model]
        for channel in channels:
            if channels.count(channel) > 1:
                raise ConfigError(f"two [[model]] tables use channel {channel!r}", hint="each needs one of its own")
        for name, publisher in self.publishers.items():
            check_name("publishers", name)
            for model in publisher.models:
                check_name(f"publishers.{name}.models", model)

    def resolved(self, base: Path) -> BoardConfig:
        """Return this configuration with every relative path made absolute, from ``base``."""
        replace = msgspec.structs.replace

        def absolute(path: str | None) -> str | None:
            return path if path is None or path.startswith("credential:") else str(base / path)

        def all_absolute(table: _Table, *names: str) -> dict[str, str | None]:
            return {name: absolute(getattr(table, name)) for name in names}

        return replace(
            self,
            device=replace(self.device, **all_absolute(self.device, "state")),
            broker=replace(self.broker, **all_absolute(self.broker, "ca", "cert", "key", "password")),
            keystore=replace(self.keystore, **all_absolute(self.keystore, "wrap")),
            publishers={name: replace(one, **all_absolute(one, "key")) for name, one in self.publishers.items()},
            results=replace(self.results, hubs=tuple(str(base / hub) for hub in self.results.hubs)),
            model=tuple(replace(one, **all_absolute(one, "sensor")) for one in self.model),
        )
