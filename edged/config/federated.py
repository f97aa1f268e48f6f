"""``[federated]`` of a board: whom it learns with, how much it gives away, and when."""

import re
from pathlib import Path
from typing import Self

import msgspec

from edged.base.errors import ConfigError
from edged.base.names import check_name
from edged.config.model import SiteTable

_ADDRESS = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})"
_HOURS = r"([01][0-9]|2[0-3]):([0-5][0-9]) ?- ?([01][0-9]|2[0-3]):([0-5][0-9])"
_FINGERPRINT = r"[0-9a-f]{32}"
_MOST_PORT = 65_535
_LEAST_MASKED = 3
"""Boards in a masked round: with two, each can subtract itself from the sum."""

MinutesOfDay = tuple[int, int]
"""Minutes of the day, the second one not included; the first is above the second where midnight lies between."""


def check_address(key: str, text: str) -> str:
    """Return ``HOST:PORT`` if ``text`` is that.

    :raises ConfigError: it is not.
    """
    match = re.fullmatch(_ADDRESS, text)
    if not match or not 0 < int(match[1]) <= _MOST_PORT:
        raise ConfigError(f"{key}: {text!r} is not HOST:PORT", hint='"fleet.example:8443"; it is always TLS')
    return text


class When(SiteTable, frozen=True):
    """``[federated.when]``: when a board may train. Whatever is left out does not matter.

    :ivar mains: only while it is not on a battery.
    :ivar temperature: degrees Celsius that its hottest sensor must be below.
    :ivar idle: share of its CPUs, 0 to 1, that must have been idle over the last seconds.
    :ivar hours: of the day, by the board's own time zone: "22:00-06:00".
    :ivar network: interfaces, one of which must carry the default route: ("eth0",) keeps a board off its modem.
    """

    mains: bool = False
    temperature: float | None = None
    idle: float | None = None
    hours: str | None = None
    network: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 < self.temperature < 200:  # noqa: PLR2004  degrees
            raise ConfigError("federated.when.temperature: degrees Celsius, above 0 and below 200")
        if self.idle is not None and not 0 <= self.idle <= 1:
            raise ConfigError("federated.when.idle: between 0 and 1: the share of all CPUs")
        if self.hours is not None and not re.fullmatch(_HOURS, self.hours):
            raise ConfigError(f"federated.when.hours: {self.hours!r} is not a time of day", hint='"22:00-06:00"')

    @property
    def window(self) -> MinutesOfDay | None:
        """``hours`` as minutes of the day."""
        match = None if self.hours is None else re.fullmatch(_HOURS, self.hours)
        if match is None:
            return None
        begins, ends = (60 * int(match[at]) + int(match[at + 1]) for at in (1, 3))
        return begins, ends


class Privacy(SiteTable, frozen=True):
    """``[federated.privacy]``: what this board insists on, whatever a round asks.

    :ivar clip: the largest norm that one example's gradient may have in a step: a round must clip at least so far.
    :ivar noise: the least noise of local DP-SGD, as a multiple of ``clip``; 0: none is insisted on.
    :ivar epsilon: what may be spent on one model at ``delta`` over this board's life; then it takes part no more.
    """

    clip: float | None = None
    noise: float = 0.0
    epsilon: float | None = None
    delta: float = 1e-5

    def __post_init__(self) -> None:
        if self.clip is not None and not 0 < self.clip < float("inf"):
            raise ConfigError("federated.privacy.clip: a finite number above 0")
        if not 0 <= self.noise < float("inf"):
            raise ConfigError("federated.privacy.noise: a finite number, 0 or above")
        if self.noise and self.clip is None:
            raise ConfigError("federated.privacy.clip: wanted where noise is: noise is a multiple of it")
        if self.epsilon is not None and not (self.epsilon > 0 and self.noise):
            raise ConfigError("federated.privacy.epsilon: above 0, and together with noise: without it none is enough")
        if not 0 < self.delta < 1:
            raise ConfigError("federated.privacy.delta: between 0 and 1")


class FederatedTable(SiteTable, frozen=True):
    """``[federated]``.

    :ivar aggregator: ``HOST:PORT``, always TLS.
    :ivar record: the aggregator's record: rounds that its key did not sign are refused.
    :ivar ca: who vouches for the aggregator's certificate.
    :ivar models: which of this board's models learn; each has a ``[model.collect]``.
    :ivar secure: take part only where updates are masked (SecAgg+), so that the aggregator sees sums alone; false:
        where they are not, they are sealed to the aggregator, who sees each.
    :ivar least: boards that a masked round must have.
    :ivar peers: boards that a masked round must have among its own, each ``NAME`` or ``NAME FINGERPRINT``: an
        aggregator that lies can invent boards, under any name, and not their keys.
    """

    aggregator: str
    record: str
    ca: str
    models: tuple[str, ...]
    secure: bool = True
    least: int = _LEAST_MASKED
    peers: tuple[str, ...] = ()
    privacy: Privacy = Privacy()
    when: When = When()

    def __post_init__(self) -> None:
        check_address("federated.aggregator", self.aggregator)
        if not self.models:
            raise ConfigError("federated.models: nothing would learn", hint="name at least one model")
        for model in self.models:
            check_name("federated.models", model)
        if self.least < _LEAST_MASKED:
            raise ConfigError(
                f"federated.least: at least {_LEAST_MASKED}",
                hint="of the sum of two boards, each knows its own half, and so the other's",
            )
        for name, digits in self.peers_by_name.items():
            check_name("federated.peers", name)
            if digits and not re.fullmatch(_FINGERPRINT, digits):
                raise ConfigError(
                    f"federated.peers: {digits!r} is no fingerprint of {name}",
                    hint="32 digits, with or without spaces, as `edged init` printed them on that board",
                )

    @property
    def peers_by_name(self) -> dict[str, str]:
        """The digits of each peer's fingerprint, without spaces, by its name; empty where none are given."""
        parted = (peer.partition(" ") for peer in self.peers)
        return {name: digits.replace(" ", "") for name, _, digits in parted}

    def resolved(self, base: Path) -> Self:
        """Return this table with every relative path made absolute, from ``base``."""
        return msgspec.structs.replace(self, record=str(base / self.record), ca=str(base / self.ca))
