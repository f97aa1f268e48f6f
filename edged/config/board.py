"""A board's configuration: what is true of this board and site. Every key of ``edged.toml`` with its default."""

from pathlib import Path
from typing import Literal, Self

import msgspec

from edged.base.errors import ConfigError
from edged.base.names import check_name
from edged.base.units import check_quantity, parse_duration, parse_size
from edged.base.web.address import Listen
from edged.config.federated import FederatedTable
from edged.config.model import MOST_TITLES, ModelConfig, SiteTable, check_sources
from edged.formats.channel import MOST_CHANNELS, MOST_HUBS

EngineName = Literal["litert", "tflite"]
EngineChoice = Literal["auto", "litert", "tflite"]
XnnpackChoice = Literal["auto", "on", "off"]

_LONGEST_MESSAGE = "16 MB"


def host_name() -> str:
    """Return this machine's name, without its domain."""
    import socket  # noqa: PLC0415  slow, and most configurations name the board

    return socket.gethostname().split(".")[0].lower()


def absolute(base: Path, table: SiteTable, *names: str) -> dict[str, str | None]:
    """Return the paths that a table holds under some of its keys, made absolute from ``base``."""
    found = {name: getattr(table, name) for name in names}
    return {
        name: path if path is None or path.startswith("credential:") else str(base / path)
        for name, path in found.items()
    }


class Device(SiteTable, frozen=True):
    """``[device]``. The name stands in topics; the identity is the key.

    :ivar clock: ``trusted`` where somebody vouches for the clock and the kernel cannot know (a container, an RTC).
    """

    name: str = msgspec.field(default_factory=host_name)
    state: str = "/var/lib/edged"
    clock: Literal["auto", "trusted"] = "auto"

    def __post_init__(self) -> None:
        check_name("device.name", self.name)


class BrokerTable(SiteTable, frozen=True):
    """``[broker]``, and ``[uplink]`` likewise.

    ``key`` and ``password`` refer to secrets: ``credential:NAME`` or a path (mode 0600).

    :ivar session: how long the broker keeps what comes while this board is away.
    """

    url: str
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    username: str | None = None
    password: str | None = None
    session: str = "7 d"

    def __post_init__(self) -> None:
        check_quantity("broker.session", parse_duration, self.session)
        if (self.cert is None) != (self.key is None):
            raise ConfigError("broker, uplink: cert and key go together")

    def resolved(self, base: Path) -> Self:
        """Return this table with every relative path made absolute, from ``base``."""
        return msgspec.structs.replace(self, **absolute(base, self, "ca", "cert", "key", "password"))


class KeystoreTable(SiteTable, frozen=True):
    """``[keystore]``.

    :ivar uri: ``file:``, ``pkcs11:`` or ``tpm2:``.
    :ivar wrap: refers to the secret that ``file:`` keys are encrypted under at rest.
    :ivar pin: refers to the PIN of a token, or of keys in a TPM.
    """

    uri: str = "file:"
    wrap: str | None = None
    pin: str | None = None

    def __post_init__(self) -> None:
        in_files = self.uri.startswith("file:")
        if self.wrap is not None and not in_files:
            raise ConfigError("keystore.wrap: only `file:` keys are encrypted by edged", hint="leave it out")
        if self.pin is not None and in_files:
            raise ConfigError("keystore.pin: `file:` keys have no PIN", hint="keystore.wrap encrypts them")


class Publisher(SiteTable, frozen=True):
    """``[publishers.NAME]``: a publisher's record, and the models that it may sign.

    :ivar step: how far a version may lie above the one that this board accepted last: versions only grow, and one near
        the end would leave none to come.
    """

    key: str
    models: tuple[str, ...]
    step: int = 100_000

    def __post_init__(self) -> None:
        if self.step < 1:
            raise ConfigError("publishers: step: at least 1")


class Outbox(SiteTable, frozen=True):
    """``results.outbox``: how many bytes of results may wait for the broker, and for how long."""

    size: str = "64 MB"
    age: str = "7 d"

    def __post_init__(self) -> None:
        check_quantity("results.outbox.size", parse_size, self.size)
        check_quantity("results.outbox.age", parse_duration, self.age)


class Results(SiteTable, frozen=True):
    """``[results]``.

    :ivar hubs: records of the hubs that can read results.
    :ivar sign: sign each result inside its seal, so that one hub cannot forge for another.
    :ivar aead: what seals them: every COSE library opens the default; the other is faster where the CPU knows no AES.
    :ivar rotate: age at which the channel key is replaced.
    :ivar heartbeat: how often the board says how it is.
    """

    hubs: tuple[str, ...]
    prefix: str = "edged"
    sign: bool = False
    aead: Literal["A256GCM", "ChaCha20/Poly1305"] = "A256GCM"
    rotate: str = "24h"
    heartbeat: str = "30 s"
    outbox: Outbox = Outbox()

    def __post_init__(self) -> None:
        check_quantity("results.rotate", parse_duration, self.rotate)
        check_quantity("results.heartbeat", parse_duration, self.heartbeat)
        if not self.hubs:
            raise ConfigError("results.hubs: nobody could read the results", hint="name at least one hub's record")
        if len(self.hubs) > MOST_HUBS:
            raise ConfigError(f"results.hubs: {len(self.hubs)} of them: an announcement has room for {MOST_HUBS}")
        for level in self.prefix.split("/"):
            check_name("results.prefix", level)


class Limits(SiteTable, frozen=True):
    """``[limits]``: what is taken of one topic.

    :ivar message: the longest message.
    :ivar rate: messages a second; a second's worth may come at once. What comes beyond is lost; default: all is taken.
    """

    message: str = "1 MB"
    rate: float | None = None

    def __post_init__(self) -> None:
        check_quantity("limits.message", parse_size, self.message)
        if parse_size(self.message) > parse_size(_LONGEST_MESSAGE):
            raise ConfigError(f"limits.message: at most {_LONGEST_MESSAGE}")
        if self.rate is not None and not self.rate >= 1:
            raise ConfigError("limits.rate: at least 1 message a second")


class DelegateTable(SiteTable, frozen=True):
    """``[runtime.delegates.NAME]``: an accelerator's library, which the runtime's own loader opens.

    :ivar library: a path, or a name that the dynamic linker finds.
    :ivar options: as the library knows them.
    """

    library: str
    options: dict[str, str] = msgspec.field(default_factory=dict)


class Runtime(SiteTable, frozen=True):
    """``[runtime]``.

    :ivar xnnpack: ``auto`` leaves it out for models above 16 MB on tflite-runtime: it would copy their weights.
    :ivar threads: of each model; default: what its manifest says.
    :ivar slow: a model whose self-test takes longer than this a window gets a thread of its own.
    :ivar delegates: accelerators that a ``[[model]]`` may name.
    """

    engine: EngineChoice = "auto"
    xnnpack: XnnpackChoice = "auto"
    threads: int | None = None
    slow: str = "5 ms"
    delegates: dict[str, DelegateTable] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ConfigError("runtime.threads: at least 1")
        check_quantity("runtime.slow", parse_duration, self.slow)


class LogTable(SiteTable, frozen=True):
    """``[log]``."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class MetricsTable(SiteTable, frozen=True):
    """``[metrics]``, of a board and of a hub: numbers for Prometheus.

    :ivar listen: path of a unix socket, or ``127.0.0.1:PORT``.
    """

    listen: str

    def __post_init__(self) -> None:
        Listen.parse(self.listen)


class BoardConfig(SiteTable, frozen=True):
    """The whole file.

    :ivar uplink: the broker that results go to, where that is another one than readings come from.
    """

    broker: BrokerTable
    results: Results
    uplink: BrokerTable | None = None
    device: Device = msgspec.field(default_factory=Device)
    keystore: KeystoreTable = KeystoreTable()
    publishers: dict[str, Publisher] = msgspec.field(default_factory=dict)
    model: tuple[ModelConfig, ...] = ()
    limits: Limits = Limits()
    runtime: Runtime = Runtime()
    federated: FederatedTable | None = None
    metrics: MetricsTable | None = None
    log: LogTable = LogTable()

    def __post_init__(self) -> None:
        channels = [model.channel for model in self.model]
        for channel in channels:
            if channels.count(channel) > 1:
                raise ConfigError(f"two [[model]] tables use channel {channel!r}", hint="each needs one of its own")
        if (told := sum(model.publish for model in self.model)) > MOST_CHANNELS:
            raise ConfigError(
                f"{told} [[model]] tables publish, and hubs accept {MOST_CHANNELS} channels of a board",
                hint="publish = false where another model reads the answers",
            )
        check_sources(self.model)
        if (named := sum(len(model.sources) for model in self.model)) > MOST_TITLES:
            raise ConfigError(f"model.sources: {named} names, and hubs are told {MOST_TITLES} at most")
        for model in self.model:
            if model.delegate is not None and model.delegate not in self.runtime.delegates:
                raise ConfigError(
                    f"[[model]] {model.name}: delegate: {model.delegate!r} is not configured",
                    hint=f"[runtime.delegates.{model.delegate}] names its library",
                )
        for name, publisher in self.publishers.items():
            check_name("publishers", name)
            for signed in publisher.models:
                check_name(f"publishers.{name}.models", signed)

    def resolved(self, base: Path) -> Self:
        """Return this configuration with every relative path made absolute, from ``base``."""
        replace = msgspec.structs.replace

        def all_absolute(table: SiteTable, *names: str) -> dict[str, str | None]:
            return absolute(base, table, *names)

        return replace(
            self,
            device=replace(self.device, **all_absolute(self.device, "state")),
            broker=self.broker.resolved(base),
            uplink=None if self.uplink is None else self.uplink.resolved(base),
            keystore=replace(self.keystore, **all_absolute(self.keystore, "wrap", "pin")),
            publishers={name: replace(one, **all_absolute(one, "key")) for name, one in self.publishers.items()},
            results=replace(self.results, hubs=tuple(str(base / hub) for hub in self.results.hubs)),
            federated=None if self.federated is None else self.federated.resolved(base),
            model=tuple(
                replace(one, sensor=tuple(str(base / path) for path in one.sensors) or None) for one in self.model
            ),
            runtime=replace(
                self.runtime,
                delegates={
                    name: replace(one, **all_absolute(one, "library")) if "/" in one.library else one
                    for name, one in self.runtime.delegates.items()
                },
            ),
        )
