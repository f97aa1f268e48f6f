"""The app that a run carries: one fixed archive without code, the same from every edged of this protocol.

Flower hands an archive of Python to every board of a run. Boards compare it with the one below and run nothing
out of it, whatever it holds: what they run is the edged that is installed on them.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from importlib import resources

IDENTITY = "edged/edged"
_DATE = (1980, 1, 1, 0, 0, 0)
_CONFIG = "pyproject.toml"
_INDEX = ".info/CONTENT"


@cache
def app() -> bytes:
    """Return the archive, byte for byte the same everywhere: no compression, fixed dates and attributes."""
    config = (resources.files("edged.federated.flower") / "app" / _CONFIG).read_bytes()
    index = f"{_CONFIG},{hashlib.sha256(config).hexdigest()},{8 * len(config)}"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, content in ((_CONFIG, config), (_INDEX, index.encode())):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3  # Unix, wherever this runs
            file.writestr(entry, content)
    return archive.getvalue()


@cache
def digest() -> str:
    """Return the archive's SHA-256, as Flower names it: hexadecimal digits."""
    return hashlib.sha256(app()).hexdigest()
