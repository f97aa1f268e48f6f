"""What a board must not forget: ``state.db`` (SQLite, WAL), one file a concern.

Commits are synchronous: what a method returned from is durable. The daemon holds an exclusive lock on the directory;
commands that only accept a package share the database with it.
"""

from edged.state.board import Rejected, State
from edged.state.examples import Class, ExampleEditor, Examples, Intake, Like, Loaded, Of, StoreKeys, Which, Window
from edged.state.hub import HubState, Queued
from edged.state.lock import Lock
from edged.state.outbox import OutboxStore, Stored
from edged.state.repair import open_state
from edged.state.rows import RowStore, StoredReading
from edged.state.suspects import SetAside, SuspectStore

__all__ = [
    "Class",
    "ExampleEditor",
    "Examples",
    "HubState",
    "Intake",
    "Like",
    "Loaded",
    "Lock",
    "Of",
    "OutboxStore",
    "Queued",
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
