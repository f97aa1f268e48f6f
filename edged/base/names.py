"""Names of devices, sensors, channels and models: one topic level each."""

from __future__ import annotations

import re

from edged.base.errors import ConfigError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
RESERVED_CHANNELS = frozenset({"announce", "nonce", "status", "health", "inventory"})
"""Last topic levels of a board that are not channels."""


def is_channel(value: str) -> bool:
    """Return True if ``value`` may be the name of a channel."""
    return NAME.fullmatch(value) is not None and value not in RESERVED_CHANNELS


def check_name(where: str, value: str) -> str:
    """Return ``value`` if it is a name.

    :param where: the key or option that holds it.
    :raises ConfigError: it is not.
    """
    if not NAME.fullmatch(value):
        raise ConfigError(
            f"{where}: {value!r} is not a name", hint="a-z, 0-9, - and _, at most 64, beginning with a letter or digit"
        )
    return value
