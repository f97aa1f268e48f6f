"""Sealed TFLite models on IoT boards: verified, decrypted only into RAM, answered over MQTT.

As a library, without files and sockets (docs/library.md): :class:`Hub` opens what boards publish,
:class:`ReadingSealer` seals what a sensor measures, :func:`pack_model` makes packages, :class:`Package` reads them.
Every error is an :class:`EdgedError`. ``import edged`` loads none of it: each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edged.base.errors import EdgedError as EdgedError
    from edged.formats.channel.hub import Hub as Hub
    from edged.formats.channel.hub import Taken as Taken
    from edged.formats.channel.reading import ReadingSealer as ReadingSealer
    from edged.formats.channel.receiver import Opened as Opened
    from edged.formats.cose.keys import ContentKey as ContentKey
    from edged.formats.cose.keys import Keys as Keys
    from edged.formats.cose.pem import read_keys as read_keys
    from edged.formats.cose.pem import write_keys as write_keys
    from edged.formats.identity import Record as Record
    from edged.formats.identity import Role as Role
    from edged.formats.package.verify import Package as Package
    from edged.formats.package.verify import Publishers as Publishers
    from edged.model.packing import pack_model as pack_model

__version__ = "0.1.0"

_PLACES = {
    "base.errors": ("EdgedError",),
    "formats.channel.hub": ("Hub", "Taken"),
    "formats.channel.reading": ("ReadingSealer",),
    "formats.channel.receiver": ("Opened",),
    "formats.cose.keys": ("ContentKey", "Keys"),
    "formats.cose.pem": ("read_keys", "write_keys"),
    "formats.identity": ("Record", "Role"),
    "formats.package.verify": ("Package", "Publishers"),
    "model.packing": ("pack_model",),
}
_PLACE = {name: f"edged.{module}" for module, names in _PLACES.items() for name in names}


if not TYPE_CHECKING:  # which would take every name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _PLACE:
            raise AttributeError(f"module 'edged' has no attribute {name!r}")
        return getattr(import_module(_PLACE[name]), name)

    def __dir__() -> list[str]:
        return [*globals(), *_PLACE]
