"""A board's durable state: ``state.db`` (SQLite with WAL), one file a concern.

Commits are synchronous: what a method returned from is durable. The daemon holds an exclusive lock on the directory;
commands that only accept a package share the database with it. May import: formats, base.
"""

from edged.board.state.delivery import OutboxStore, Quarantined, QuarantineStore, RowStore, StoredReading, StoredResult
from edged.board.state.store import AuditRow, Rejected, State, open_state

__all__ = [
    "AuditRow",
    "OutboxStore",
    "QuarantineStore",
    "Quarantined",
    "Rejected",
    "RowStore",
    "State",
    "StoredReading",
    "StoredResult",
    "open_state",
]
