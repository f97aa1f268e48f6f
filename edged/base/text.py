"""Text of strangers, made fit for a terminal or a line of a log."""

from __future__ import annotations

_SHORT = {"\b": r"\b", "\t": r"\t", "\n": r"\n", "\f": r"\f", "\r": r"\r"}


def printable(text: str) -> str:
    """Return ``text`` in one line, with each character that does not print as JSON's escape of it.

    Escape sequences, line breaks and marks that turn the direction of writing (Unicode's categories C and Z, but for
    the space) would let a label, topic or licence show lines that nobody wrote. Inside a JSON document, where they can
    only stand in strings, the escapes mean the same as the characters.
    """
    return text if text.isprintable() else "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return _SHORT.get(character) or "".join(rf"\u{units[at : at + 4]}" for at in range(0, len(units), 4))
