"""A private Mosquitto on a free loopback port, for as long as a measurement lasts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from process import ProcessError

HOST = "127.0.0.1"
_PATIENCE = 10.0
_CONFIG = """
user root
listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 0
max_inflight_messages 0
set_tcp_nodelay true
"""


@contextmanager
def mosquitto(directory: Path) -> Iterator[int]:
    """Run a broker that queues without a bound and delays nothing; the block gets its port.

    :raises ProcessError: there is none, or it does not start.
    """
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise ProcessError("mosquitto is not installed")
    port = free_port()
    config = directory / "mosquitto.conf"
    config.write_text(_CONFIG.format(port=port))
    with (directory / "mosquitto.log").open("w") as log:
        process = subprocess.Popen([program, "-c", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until = time.monotonic() + _PATIENCE
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until:
                raise ProcessError(f"mosquitto does not start: {(directory / 'mosquitto.log').read_text()}")
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """Return a port of the loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
