"""The parts of a run that both ends agree on: keys of its messages, heartbeats, and the app that it carries.

The app is one fixed archive without code, the same from every edged of this protocol. Flower hands an archive of Python
to every board of a run. Boards compare it with the one below and run nothing out of it, whatever it holds: they run the
edged that is installed on them.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from functools import cache
from importlib import resources

import httpx
from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest
from flwr.supercore.runtime import RuntimeHttpClient

ORDER = "order"
"""Key of the signed order: in the configuration of Flower's FitIns, and beside a masked round's first stage."""

ROUND = "edged.round"
"""Name of edged's own record beside Flower's in the stages of a masked round."""

STATEMENT, STATEMENTS, CONFIRMATION, CONFIRMATIONS = "statement", "statements", "confirmation", "confirmations"
"""Keys of that record: what one board signed, in its reply, and what all did, handed round."""

CONFIRM = "confirm"
"""Name of the stage between collecting and unmasking, in which boards sign for the sum."""

WEIGHTS, UPDATE = "edged.weights.1", "edged.update.1"
"""Types of a message's one tensor: encoded weights, or a sealed update."""

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


def heartbeat(client: RuntimeHttpClient) -> Callable[[], bool]:
    """Return what :class:`flwr.supercore.heartbeat.HeartbeatSender` calls: true, unless it should try again soon."""

    def send() -> bool:
        try:
            client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except httpx.TransportError:
            return False
        except httpx.HTTPStatusError:
            return True  # the run is over: the reply will find out
        return True

    return send
