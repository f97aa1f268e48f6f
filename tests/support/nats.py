"""A NATS server of a test's own, with JetStream and MQTT, on a free loopback port."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from support.ports import quiet_ports
from support.process import Server

_PROGRAM = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def cannot() -> str:
    """Return why there is no NATS here; empty if there is."""
    return "" if _PROGRAM else "needs nats-server, of Debian's package of that name"


class Nats(Server):
    """NATS that keeps what it acknowledged under ``directory``.

    :param mqtt: further lines of its ``mqtt`` block.
    :param more: further lines of its configuration.
    """

    def __init__(self, directory: Path, mqtt: str = "", more: str = "") -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.port = quiet_ports(2)
        self.url = f"mqtt://127.0.0.1:{self.port}"
        config = directory / "nats.conf"
        config.write_text(f"""
server_name: edged-test
listen: 127.0.0.1:{self.port + 1}
jetstream {{ store_dir: "{directory}/jetstream" }}
mqtt {{
  listen: 127.0.0.1:{self.port}
  {mqtt}
}}
log_file: "{directory}/nats.log"
{more}
""")
        super().__init__((str(_PROGRAM), "-c", config), {}, lambda: answers(self.port))


def answers(port: int) -> bool:
    """Return True if a broker answers a CONNECT (MQTT 3.1.1), be it with a refusal."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.settimeout(1)
            sock.sendall(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x1e\x00\x03try")
            return sock.recv(4).startswith(b"\x20\x02")
    except OSError:
        return False
