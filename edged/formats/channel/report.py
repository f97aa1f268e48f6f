"""Reports: a board's state, sealed as its results are, in a CBOR map that is padded so that its size says little."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

import msgspec

from edged.base.errors import FormatError
from edged.formats.channel.padding import encode_padded
from edged.formats.cose import cbor

LIMITS = cbor.Limits(size=64 * 1024, depth=4, items=2048)
_STEP = 256
_MOST_TEXT = 200


@dataclass(frozen=True)
class Report:
    """The state of a board.

    :ivar time: Unix seconds, as well as the board knows; ``uptime``: seconds since the daemon's start.
    :ivar rate: messages a second, lately.
    :ivar repeated: messages that were handed out once more and had been dealt with.
    :ivar dropped: results that nobody will get; ``lost``: windows that a crash took.
    :ivar waiting: results on their way, stored ones included; ``stored``: their bytes in the outbox.
    :ivar set_aside: messages that failed the daemon again and again.
    :ivar models: name and version by channel.
    :ivar degraded: the parts that do not work as they should, in plain words.
    :ivar temperature: of the board in degrees Celsius, where the kernel tells.
    :ivar throttled: reasons for which the board runs slower than it could, where the kernel tells.
    :ivar books: each reading and each result since the start in exactly one entry; empty from older releases.
    """

    time: float
    uptime: float
    messages: int
    results: int
    rate: float
    refused: int
    repeated: int
    dropped: int
    lost: int
    waiting: int
    stored: int
    set_aside: int
    error: str
    models: Mapping[str, tuple[str, int]]
    degraded: Sequence[str] = ()
    temperature: float | None = None
    throttled: Sequence[str] = ()
    books: Mapping[str, int | Mapping[str, int]] = field(default_factory=dict)

    def encode(self, most: float = math.inf) -> bytes:
        """Return the report, padded to a multiple of 256 bytes; not padded where that would be over ``most`` bytes."""
        value = asdict(self)
        value["error"] = self.error[:_MOST_TEXT]
        value["degraded"] = [text[:_MOST_TEXT] for text in self.degraded]
        value["throttled"] = list(self.throttled)
        value["models"] = {channel: list(model) for channel, model in self.models.items()}
        return encode_padded(value, _STEP, most)

    @classmethod
    def parse(cls, data: bytes) -> Report:
        """Take a report that was opened. Keys that this release does not know are passed over.

        :raises FormatError: it is not one.
        """
        value = cbor.decode(data, LIMITS)
        if not isinstance(value, dict) or not {one.name for one in fields(cls)} - _OPTIONAL <= set(value):
            raise FormatError("a board's report lacks keys")
        try:
            report = msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise FormatError(f"a board's report does not fit: {error}") from error
        if min(getattr(report, name) for name in _COUNTS) < 0:
            raise FormatError("a board's report has a count below 0")
        return report


_OPTIONAL = {"books"}
_COUNTS = ("messages", "results", "refused", "repeated", "dropped", "lost", "waiting", "stored", "set_aside")
