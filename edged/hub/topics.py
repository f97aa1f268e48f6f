"""The topics of the local broker: a board's own, and one for each place that its results come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self
from urllib.parse import quote, unquote

from edged.formats.channel.receiver import Opened

MOST_SOURCES = 256
"""Sources of a channel that are shown; the one that was silent for longest makes room."""
_SOURCE = "/source/"


class Place(NamedTuple):
    """The place that a result comes from.

    :ivar channel: of the model.
    :ivar source: the levels that `+` stood for in the topic of the readings; empty where the model has no `+`.
    """

    channel: str
    source: str = ""

    @classmethod
    def of(cls, opened: Opened) -> Self:
        """Return the place of a result."""
        return cls(opened.channel, opened.result.source)

    @classmethod
    def parse(cls, levels: str) -> Self:
        """Return the place that :attr:`levels` stand for."""
        channel, _, source = levels.partition(_SOURCE)
        return cls(channel, unquote(source))

    @property
    def levels(self) -> str:
        """The last levels of its topic: a source is one level, in percent-encoding (RFC 3986, section 2.1)."""
        return f"{self.channel}{_SOURCE}{quote(self.source, safe='')}" if self.source else self.channel


@dataclass(frozen=True)
class Topics:
    """The local topics of one board.

    :ivar hub: topic of the hub's own availability.
    :ivar base: first levels of the board's topics.
    """

    hub: str
    base: str

    @classmethod
    def of(cls, prefix: str, device: str) -> Self:
        """Return the topics of a board.

        :param prefix: first levels of the hub's topics.
        """
        return cls(f"{prefix}/status", f"{prefix}/{device}")

    @property
    def availability(self) -> str:
        """Topic of the board's availability."""
        return f"{self.base}/availability"

    @property
    def health(self) -> str:
        """Topic of the board's reports."""
        return f"{self.base}/health"

    def result(self, place: Place) -> str:
        """Return the topic of a place's results."""
        return f"{self.base}/{place.levels}"

    def late(self, place: Place) -> str:
        """Return the topic of a place's results that come behind newer ones."""
        return f"{self.result(place)}/late"

    def update(self, channel: str) -> str:
        """Return the topic of the versions of a channel's model."""
        return f"{self.base}/{channel}/update"

    def place(self, topic: str) -> Place | None:
        """Return the place whose results are on a topic; None for any other topic."""
        if topic in {self.availability, self.health} or not topic.startswith(f"{self.base}/"):
            return None
        place = Place.parse(topic[len(self.base) + 1 :])
        return place if "/" not in place.channel and self.result(place) == topic else None
