"""A RabbitMQ of a test's own, with its MQTT plugin, on free loopback ports, with an epmd of its own beside it."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Self

from support.nats import answers
from support.ports import quiet_ports
from support.process import Server

_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Below the one in /usr/sbin, which runs everything as Debian's user and in Debian's directories."""


def cannot() -> str:
    """Return why there is no RabbitMQ here; empty if there is."""
    return "" if _PROGRAM.exists() else "needs rabbitmq-server, of Debian's package of that name"


class RabbitMq(Server):
    """RabbitMQ that keeps what it acknowledged under ``directory``.

    :param config: further lines of rabbitmq.conf.
    """

    def __init__(self, directory: Path, config: str = "") -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.port = quiet_ports(3)
        epmd, distribution = self.port + 1, self.port + 2
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

        def epmd_listens() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", epmd)) == 0

        names = (str(shutil.which("epmd")), "-port", epmd, "-address", "127.0.0.1")
        self._epmd = Server(names, environment, epmd_listens)
        # It listens before it can serve, and takes some ten seconds for both.
        super().__init__((_PROGRAM,), environment, lambda: answers(self.port), directory / "said")

    def __enter__(self) -> Self:
        self._epmd.start()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._epmd.stop()
