"""Writing TOML by hand: the standard library only reads it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Sequence

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_WIDTH = 100


def text(value: str) -> str:
    """Return a string in quotes."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def key(name: str) -> str:
    """Return a key, in quotes where it needs them."""
    return name if _BARE.fullmatch(name) else text(name)


def array(values: Sequence[str]) -> list[str]:
    """Return an array of values that are TOML already, on as many lines as it takes."""
    whole = f"[{', '.join(values)}]"
    if len(whole) <= _WIDTH:
        return [whole]
    lines = [""]
    for value in values:
        if lines[-1] and len(lines[-1]) + len(value) + 2 > _WIDTH:
            lines.append("")
        lines[-1] += f"{value}, "
    return ["[", *(f"    {one.rstrip()}" for one in lines), "]"]


def assign(name: str, values: Sequence[str], comment: str = "") -> list[str]:
    """Return the lines ``name = [...]``."""
    first, *rest = array(values)
    return [_with(f"{name} = {first}", comment), *rest]


def numbers(values: Sequence[float]) -> str:
    """Return a number where there is one, else an array of them."""
    written = [repr(float(value)) for value in values]
    return written[0] if len(written) == 1 else f"[{', '.join(written)}]"


def line(words: str) -> str:
    """Return words as they may stand in a comment: on one line, without what TOML forbids there."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in words).split())


def remark(sentence: str) -> list[str]:
    """Return a comment, on as many lines as it takes."""
    return [f"# {part}" for part in textwrap.wrap(line(sentence), _WIDTH)]


def _with(line: str, comment: str) -> str:
    return f"{line}  # {comment}" if comment else line


def table(name: str, lines: Iterable[str]) -> list[str]:
    """Return a table below an empty line."""
    return ["", f"[{name}]", *lines]
