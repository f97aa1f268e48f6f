"""Boards that were revoked: the folder `revoked` of the records says which, by name."""

from __future__ import annotations

from pathlib import Path

_FOLDER = "revoked"


def revoked(records: str | Path) -> list[str]:
    """Return the names of the boards that were revoked, or given away, and not taken back since."""
    return sorted(path.stem for path in (Path(records) / _FOLDER).glob("*.enrol"))


def mark(records: str | Path, name: str) -> Path:
    """Return the file that says of a board that it was revoked: the record that it had, or nothing."""
    return Path(records) / _FOLDER / f"{name}.enrol"
