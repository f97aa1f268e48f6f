"""What a board must not forget: ``state.db`` (SQLite, WAL), one file a concern.

Commits are synchronous: what a method returned from is durable. The daemon holds an exclusive lock on the directory;
commands that only accept a package share the database with it.
"""

from edged.board.state.examples import (
    Class,
    ExampleEditor,
    Examples,
    Intake,
    Like,
    Loaded,
    Of,
    StoreKeys,
    Which,
    Window,
)
from edged.board.state.outbox import OutboxStore, Stored
from edged.board.state.repair import open_state
from edged.board.state.rows import RowStore, StoredReading
from edged.board.state.store import Rejected, State
from edged.board.state.suspects import SetAside, SuspectStore

__all__ = [
    "Class",
    "ExampleEditor",
    "Examples",
    "Intake",
    "Like",
    "Loaded",
    "Of",
    "OutboxStore",
    "Rejected",
    "RowStore",
    "SetAside",
    "State",
    "StoreKeys",
    "Stored",
    "StoredReading",
    "SuspectStore",
    "Which",
    "Window",
    "open_state",
]
