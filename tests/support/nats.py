"""A NATS server of a test's own, with JetStream and MQTT, on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from support.server import Server

_PROGRAM = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def cannot() -> str:
    """Return why there is no NATS here; empty if there is."""
    return "" if _PROGRAM else "needs nats-server, of Debian's package of that name"


class Nats:
    """NATS that keeps what it acknowledged under ``directory``.

    :param mqtt: further lines of its ``mqtt`` block.
    :param more: further lines of its configuration.
    """

    def __init__(self, directory: Path, mqtt: str = "", more: str = "") -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.port, other = quiet_ports(2)
        self.url = f"mqtt://127.0.0.1:{self.port}"
        config = directory / "nats.conf"
        config.write_text(f"""
server_name: edged-test
listen: 127.0.0.1:{other}
jetstream {{ store_dir: "{directory}/jetstream" }}
mqtt {{
  listen: 127.0.0.1:{self.port}
  {mqtt}
}}
log_file: "{directory}/nats.log"
{more}
""")
        self._server = Server((str(_PROGRAM), "-c", config), {})

    def start(self) -> None:
        """Start, and wait until it serves."""
        self._server.start(lambda: answers(self.port))

    def kill(self) -> None:
        """End it as a power cut would."""
        os.kill(self._server.pid, signal.SIGKILL)
        self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()


def quiet_ports(count: int) -> list[int]:
    """Return free loopback ports below those that the kernel gives to clients (Linux: from 32768).

    One of those could become a client's while a broker that was killed starts again.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randint(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def answers(port: int) -> bool:
    """Tell whether a broker answers a CONNECT (MQTT 3.1.1), be it with a refusal."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.settimeout(1)
            sock.sendall(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x1e\x00\x03try")
            return sock.recv(4).startswith(b"\x20\x02")
    except OSError:
        return False
