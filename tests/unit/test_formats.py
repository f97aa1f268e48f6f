"""The formats are a library for anyone: bytes in, values out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_IMPORT_ALL = """
import importlib, pkgutil, sys
import edged.formats

names = [module.name for module in pkgutil.walk_packages(edged.formats.__path__, "edged.formats.")]
for name in names:
    importlib.import_module(name)
print("modules", len(names))
print("\\n".join(sorted(sys.modules)))
"""

_FORBIDDEN = (
    "sqlite3",
    "paho",
    "numpy",
    "edged.base.database",
    "edged.config",
    "edged.keystore",
    "edged.broker",
    "edged.board",
    "edged.hub",
)


def test_formats_load_no_database_no_broker_no_arrays_and_no_configuration(tmp_path: Path) -> None:
    """A fresh process, because this one has loaded all of them."""
    done = subprocess.run([sys.executable, "-c", _IMPORT_ALL], capture_output=True, text=True, check=True, cwd=tmp_path)
    first, *loaded = done.stdout.split("\n")
    assert int(first.removeprefix("modules ")) >= 20
    assert [name for name in loaded if any(name == one or name.startswith(f"{one}.") for one in _FORBIDDEN)] == []
