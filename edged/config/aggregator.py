"""An aggregator's configuration: every key of ``aggregator.toml`` with its default."""

from pathlib import Path
from typing import Self

import msgspec

from edged.base.errors import ConfigError
from edged.base.names import check_name
from edged.config.board import KeystoreTable, LogTable, absolute, host_name
from edged.config.model import SiteTable

_MOST_PORT = 65_535


class AggregatorTable(SiteTable, frozen=True):
    """``[aggregator]``.

    :ivar name: stands in its record.
    :ivar state: its keys, the boards that are allowed, and what trainings came to.
    :ivar port: of the loopback, where the SuperLink listens; boards come in through the proxy.
    """

    name: str = msgspec.field(default_factory=host_name)
    state: str = "/var/lib/edged-aggregator"
    port: int = 9092

    def __post_init__(self) -> None:
        check_name("aggregator.name", self.name)
        if not 0 < self.port <= _MOST_PORT:
            raise ConfigError(f"aggregator.port: {self.port} is no port")


class AggregatorConfig(SiteTable, frozen=True):
    """The whole file."""

    aggregator: AggregatorTable = msgspec.field(default_factory=AggregatorTable)
    keystore: KeystoreTable = KeystoreTable()
    log: LogTable = LogTable()

    def resolved(self, base: Path) -> Self:
        """Return this configuration with every relative path made absolute, from ``base``."""
        replace = msgspec.structs.replace
        return replace(
            self,
            aggregator=replace(self.aggregator, **absolute(base, self.aggregator, "state")),
            keystore=replace(self.keystore, **absolute(base, self.keystore, "wrap", "pin")),
        )


TEMPLATE = """\
# An aggregator's configuration. All of it may be left out.

[aggregator]
name = "{name}"                        # stands in its record
# state = "/var/lib/edged-aggregator"  # its keys, the boards that are allowed, and what trainings came to
# port = 9092                          # of the loopback; boards come in through a proxy

# [keystore]
# uri = "file:"                        # or pkcs11:..., tpm2:
# wrap = "credential:aggregator"       # what file: keys are encrypted under
"""
