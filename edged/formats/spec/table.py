"""What every table of a manifest is."""

from __future__ import annotations

import msgspec


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A table of the manifest: its keys and no others; what has its default value is left out when it is signed."""
