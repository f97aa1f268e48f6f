"""``examples.db``: windows that stay on a board to train its models with (SQLite, WAL), each sealed by itself.

What there is and what it holds: ``store``. What a daemon adds, and what gives way: ``intake``, ``eviction``. What an
operator labels and erases: ``edit``. What they are sealed under: ``keys``.
"""

from edged.board.state.examples.edit import ExampleEditor, Which
from edged.board.state.examples.intake import Intake
from edged.board.state.examples.keys import Of, StoreKeys
from edged.board.state.examples.store import Class, Examples, Like, Loaded, Window

__all__ = ["Class", "ExampleEditor", "Examples", "Intake", "Like", "Loaded", "Of", "StoreKeys", "Which", "Window"]
