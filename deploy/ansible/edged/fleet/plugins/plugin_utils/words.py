"""Text that came from a board, made fit to be shown, and names."""

from __future__ import annotations

import re

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""A name of a board, hub or aggregator, as edged has it."""

_MOST = 500
_UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"


def plain(text: object, most: int = _MOST) -> str:
    """Return ``text`` without anything that a terminal would act on, on one line, and not longer than ``most``.

    Escape sequences, line ends, and characters that turn the writing direction or have no width are replaced.
    """
    said = str(text)
    shown = "".join(one if one.isprintable() else " " if one in "\n\t" else _UNPRINTABLE for one in said[:most])
    return shown.strip() + (" ..." if len(said) > most else "")
