"""A board's durable state: ``state.db`` (``store``, ``delivery``) and ``examples.db`` (``example*``), SQLite with WAL.

Commits are synchronous: what a method returned from is durable. The daemon holds an exclusive lock on the directory;
commands that only accept a package share the database with it. May import: formats, base.
"""

from edged.board.state.delivery import OutboxStore, Quarantined, QuarantineStore, RowStore, StoredReading, StoredResult
from edged.board.state.example_edits import ExampleEditor, Intake, Which
from edged.board.state.example_keys import Of, StoreKeys
from edged.board.state.examples import Class, Examples, Like, LoadedExamples, Window
from edged.board.state.store import AuditRow, Rejected, State, open_state

__all__ = [
    "AuditRow",
    "Class",
    "ExampleEditor",
    "Examples",
    "Intake",
    "Like",
    "LoadedExamples",
    "Of",
    "OutboxStore",
    "QuarantineStore",
    "Quarantined",
    "Rejected",
    "RowStore",
    "State",
    "StoreKeys",
    "StoredReading",
    "StoredResult",
    "Which",
    "Window",
    "open_state",
]
