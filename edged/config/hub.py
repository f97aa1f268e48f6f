"""A hub's configuration: every key of ``hub.toml`` with its default."""

from pathlib import Path
from typing import Self

import msgspec

from edged.base.errors import ConfigError
from edged.base.names import check_name
from edged.config.board import BrokerTable, KeystoreTable, LogTable, MetricsTable, absolute, host_name
from edged.config.model import SiteTable


class HubTable(SiteTable, frozen=True):
    """``[hub]``.

    :ivar name: stands in this hub's record and client id.
    :ivar state: its keys, and what it must not forget.
    :ivar boards: folder with the enrolment records of the boards to believe (``*.enrol``); it is read again when it
        changes.
    :ivar packages: folder with packages (``NAME-VERSION.edged``), of which the newest versions are shown as updates.
    :ivar share: name of a shared subscription, where several processes of this hub share the results.
    """

    name: str = msgspec.field(default_factory=host_name)
    state: str = "/var/lib/edged-hub"
    boards: str = "/etc/edged/boards"
    packages: str | None = None
    share: str | None = None

    def __post_init__(self) -> None:
        check_name("hub.name", self.name)
        if self.share is not None:
            check_name("hub.share", self.share)


class Upstream(BrokerTable, frozen=True):
    """``[upstream.NAME]``: a broker that boards' results come from; keys as in a board's ``[broker]``.

    :ivar prefix: the boards' ``results.prefix``.
    """

    prefix: str = "edged"

    def __post_init__(self) -> None:
        super().__post_init__()
        for level in self.prefix.split("/"):
            check_name("upstream: prefix", level)


class Local(BrokerTable, frozen=True):
    """``[local]``: the broker that gets opened results, as plain JSON; keys as in ``[broker]``.

    :ivar prefix: first levels of the topics.
    :ivar queue: messages that wait while it is away; the oldest beyond are dropped and counted.
    :ivar plaintext_on_upstream: say here that this may be an upstream broker, which is then told everything.
    """

    prefix: str = "edged-hub"
    queue: int = 100_000
    plaintext_on_upstream: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for level in self.prefix.split("/"):
            check_name("local.prefix", level)
        if self.queue < 1:
            raise ConfigError("local.queue: at least 1 message")


class HomeAssistantTable(SiteTable, frozen=True):
    """``[home_assistant]``.

    :ivar discovery: True to have boards and models appear there by themselves.
    :ivar prefix: Home Assistant's own ``discovery_prefix``.
    """

    discovery: bool = True
    prefix: str = "homeassistant"


class PageTable(SiteTable, frozen=True):
    """``[page]``: a page for people.

    :ivar address: ``HOST:PORT`` to serve it on.
    :ivar token: refers to the secret that callers must know; required unless the address is this machine's own.
    :ivar proxy: the numeric address of a proxy that lets in only whom it knows: from there no token is wanted.
    """

    address: str = "127.0.0.1:8099"
    token: str | None = None
    proxy: str | None = None


class HubConfig(SiteTable, frozen=True):
    """The whole file."""

    upstream: dict[str, Upstream]
    local: Local
    hub: HubTable = msgspec.field(default_factory=HubTable)
    keystore: KeystoreTable = KeystoreTable()
    home_assistant: HomeAssistantTable = HomeAssistantTable()
    page: PageTable | None = None
    metrics: MetricsTable | None = None
    log: LogTable = LogTable()

    def __post_init__(self) -> None:
        if not self.upstream:
            raise ConfigError("upstream: no broker to take results from", hint="[upstream.NAME] with its url")
        for name in self.upstream:
            check_name("upstream", name)

    def resolved(self, base: Path) -> Self:
        """Return this configuration with every relative path made absolute, from ``base``."""
        replace = msgspec.structs.replace
        return replace(
            self,
            hub=replace(self.hub, **absolute(base, self.hub, "state", "boards", "packages")),
            upstream={name: one.resolved(base) for name, one in self.upstream.items()},
            local=self.local.resolved(base),
            keystore=replace(self.keystore, **absolute(base, self.keystore, "wrap", "pin")),
            page=None if self.page is None else replace(self.page, **absolute(base, self.page, "token")),
        )
