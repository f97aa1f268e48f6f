"""Inventories: the models that a board serves, for hubs to show, as a CBOR map, sealed as results are, and retained.

It comes from manifests whose signatures the board has verified. A hub needs no package for it, and learns nothing of
how a model is fed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import msgspec

from edged.base.errors import FormatError
from edged.base.names import is_channel
from edged.formats.channel import MOST_CHANNELS
from edged.formats.channel.padding import encode_padded
from edged.formats.cose import cbor

LIMITS = cbor.Limits(size=256 * 1024, depth=6, items=16_384)
MOST_LABELS = 64
_STEP = 1024

Kind = Literal["classifier", "regressor", "anomaly"]


class ServedModel(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model in use.

    :ivar channel: its results' last topic level.
    :ivar model: its name, of which ``version`` is in use.
    :ivar installed: the newest version in the key store; above ``version`` where that one waits, or was refused.
    :ivar trial: True if the version in use is on trial.
    :ivar kind: what its results hold: a label and its score, or a value.
    :ivar labels: what a label may be; none of a model that has too many to choose from (:data:`MOST_LABELS`).
    :ivar unit: of a value.
    :ivar name: what people call it; empty: ``model``.
    :ivar device_class: of a value, as Home Assistant names it; empty for none.
    :ivar state_class: of a value, likewise.
    :ivar binary: labels that are of interest by themselves, each with its device class.
    :ivar longest: seconds from one result to the next at most; None where nobody can tell.
    :ivar sources: names that the site gives to sources; None of a model whose readings come from one.
    """

    channel: str
    model: str
    version: int
    installed: int
    kind: Kind
    trial: bool = False
    labels: tuple[str, ...] = ()
    unit: str = ""
    name: str = ""
    device_class: str = ""
    state_class: str = "measurement"
    binary: Mapping[str, str] = {}
    longest: float | None = None
    sources: Mapping[str, str] | None = None

    @property
    def title(self) -> str:
        """The name that people call it by."""
        return self.name or self.model


class _Encoded(msgspec.Struct, frozen=True):
    edged: str
    heartbeat: float
    models: tuple[ServedModel, ...]
    pad: bytes


class Inventory(msgspec.Struct, frozen=True):
    """All that a board serves.

    :ivar edged: the board's release.
    :ivar heartbeat: seconds from one report of the board's to the next.
    """

    edged: str
    heartbeat: float
    models: tuple[ServedModel, ...]

    def encode(self, most: float = math.inf) -> bytes:
        """Return the map, padded to a multiple of 1,024 bytes; not padded where that would be over ``most`` bytes."""
        value = {"edged": self.edged, "heartbeat": self.heartbeat, "models": msgspec.to_builtins(self.models)}
        return encode_padded(value, _STEP, most)

    def title(self, channel: str, source: str = "") -> str:
        """Return what people call the model of a channel that is served, or one of its sources.

        Where two models have one name, the channel tells them apart.
        """
        (model,) = (one for one in self.models if one.channel == channel)
        parts = [model.title]
        if sum(one.title == model.title for one in self.models) > 1:
            parts.append(channel)
        if source:
            parts.append((model.sources or {}).get(source, source))
        return " ".join(parts)

    @classmethod
    def parse(cls, data: bytes) -> Inventory:
        """Take an inventory that was opened. Keys that this release does not know are passed over.

        :raises FormatError: it is not one.
        """
        try:
            found = msgspec.convert(cbor.decode(data, LIMITS), _Encoded)
        except msgspec.ValidationError as error:
            raise FormatError(f"an inventory does not fit: {error}") from error
        if len(found.models) > MOST_CHANNELS or not 0 < found.heartbeat < float("inf") or any(found.pad):
            raise FormatError("an inventory does not fit: its models, heartbeat or pad")
        channels = [one.channel for one in found.models]
        if len(set(channels)) < len(channels) or not all(map(is_channel, channels)):
            raise FormatError("an inventory does not fit: its channels")
        return cls(found.edged, found.heartbeat, found.models)
