"""A disk that is full."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path


def fill(disk: Path) -> Path:
    """Fill a file system; return the file to be removed."""
    path = disk / "filler"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while os.write(file, bytes(4096)):
            pass
    os.close(file)
    assert shutil.disk_usage(disk).free == 0
    return path
