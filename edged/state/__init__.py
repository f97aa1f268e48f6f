"""What a board must not forget: ``state.db`` (SQLite, WAL), one file a concern.

Commits are synchronous: what a method returned from is durable. The daemon holds an exclusive lock on the directory;
commands that only accept a package share the database with it.
"""

from edged.state.board import Floor, MarkKey, Rejected, State
from edged.state.hub import ANSWERED, Believed, HubState, Queued
from edged.state.lock import Lock
from edged.state.outbox import OutboxStore, Stored, StoredEpoch
from edged.state.repair import open_state
from edged.state.rows import RowStore, StoredReading
from edged.state.suspects import SetAside, SuspectStore

__all__ = [
    "ANSWERED",
    "Believed",
    "Floor",
    "HubState",
    "Lock",
    "MarkKey",
    "OutboxStore",
    "Queued",
    "Rejected",
    "RowStore",
    "SetAside",
    "State",
    "Stored",
    "StoredEpoch",
    "StoredReading",
    "SuspectStore",
    "open_state",
]
