"""A RabbitMQ of a test's own, with its MQTT plugin, on free loopback ports, with an epmd of its own beside it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from support.nats import answers, quiet_ports
from support.server import Server

_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Below the one in /usr/sbin, which runs everything as Debian's user and in Debian's directories."""

_PATIENCE = 90.0


def cannot() -> str:
    """Return why there is no RabbitMQ here; empty if there is."""
    return "" if _PROGRAM.exists() else "needs rabbitmq-server, of Debian's package of that name"


class RabbitMq:
    """RabbitMQ that keeps what it acknowledged under ``directory``.

    :param config: further lines of rabbitmq.conf.
    """

    def __init__(self, directory: Path, config: str = "") -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.port, epmd, distribution = quiet_ports(3)
        self.url = f"mqtt://127.0.0.1:{self.port}"
        (directory / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp = none\nmqtt.listeners.tcp.1 = 127.0.0.1:{self.port}\n{config}\n"
        )
        environment = {
            "HOME": str(directory),  # where the cookie is made
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_ALLOW_INPUT": "1",  # or a shell stands between this process and the one that serves
            "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_NODENAME": f"edged-{self.port}@localhost",
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
        }
        self._epmd_port = epmd
        self._epmd = Server((str(shutil.which("epmd")), "-port", epmd, "-address", "127.0.0.1"), environment)
        self._said = directory / "said"
        self._server = Server(("sh", "-c", f"exec {_PROGRAM} >{self._said} 2>&1"), environment)

    def start(self) -> None:
        """Start, and wait until it serves: it listens before it can, and takes some ten seconds for both."""
        self._server.start(lambda: True)
        until = time.monotonic() + _PATIENCE
        while not answers(self.port):
            if time.monotonic() > until:
                raise OSError(f"RabbitMQ did not start: {self._said.read_text()[-1000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it as a power cut would."""
        os.kill(self._server.pid, signal.SIGKILL)
        self._server.stop()

    def _epmd_listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self._epmd_port)) == 0

    def _stop(self) -> None:
        self._server.stop()
        self._epmd.stop()

    def __enter__(self) -> Self:
        self._epmd.start(self._epmd_listens)
        try:
            self.start()
        except OSError:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
