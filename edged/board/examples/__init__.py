"""``examples.db``: windows that stay on a board to train its models with, each sealed by itself (SQLite with WAL).

Reading and sealing: ``store``. Changes by the daemon and by an operator: ``edits``. The keys: ``keys``.
May import: formats, base.
"""

from edged.board.examples.edits import ExampleEditor, Intake, Which
from edged.board.examples.keys import Of, StoreKeys
from edged.board.examples.store import Class, Examples, Like, LoadedExamples, Window

__all__ = [
    "Class",
    "ExampleEditor",
    "Examples",
    "Intake",
    "Like",
    "LoadedExamples",
    "Of",
    "StoreKeys",
    "Which",
    "Window",
]
