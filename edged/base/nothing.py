"""A function that does nothing, for callbacks that nobody has set."""

from __future__ import annotations


def nothing(*_args: object, **_kwargs: object) -> None:
    """Do nothing, whatever the arguments."""
