"""A Mosquitto of one's own: on a free loopback port, gone when its block ends, whatever else runs here."""

from __future__ import annotations

import datetime as dt
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from edged.base.errors import BrokerError, MissingFileError
from edged.keystore.certificates import Authority, TlsFiles

_PATIENCE = 10.0
_LIFE = dt.timedelta(days=7)
_SBIN = "/usr/sbin:/usr/local/sbin"  # where Debian puts it; not in everybody's PATH


class Mosquitto:
    """One Mosquitto process.

    :param directory: where its configuration, log and data go.
    :param listener: lines of mosquitto.conf about the listener on :attr:`port`; further listeners may follow.
    :param options: lines that stand before any listener.
    :raises MissingFileError: Mosquitto is not installed.
    """

    def __init__(self, directory: Path, listener: Sequence[str], options: Sequence[str] = ()) -> None:
        self.port = _free_port()
        self.log_path = directory / "mosquitto.log"
        self._config = directory / "mosquitto.conf"
        lines = [
            "user root",  # started as root, it would become somebody who cannot read keys of mode 0600
            "max_queued_messages 0",
            "set_tcp_nodelay true",  # or a result waits 40 ms for an acknowledgement of TCP's
            f"persistence_location {directory}/",
            *options,
            f"listener {self.port} 127.0.0.1",
            *listener,
        ]
        self._config.write_text("\n".join(lines) + "\n")
        self._program = _find_mosquitto()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it listens.

        :raises BrokerError: it leaves, or does not listen in time.
        """
        with self.log_path.open("ab") as log:
            command = [self._program, "-c", str(self._config)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603
        self._process = process
        until = time.monotonic() + _PATIENCE
        while not self._listens():
            if process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise BrokerError(f"mosquitto does not start: {self.log_path.read_text()[-500:].strip()}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End it as an administrator would; does nothing if it does not run."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class PrivateBroker(Mosquitto):
    """A Mosquitto that takes TLS with client certificates of its own authority only.

    :param directory: made if absent; keys go there too.
    :param listener: further lines of mosquitto.conf about its listener.
    :param options: lines that stand before it.
    """

    def __init__(self, directory: Path, listener: Sequence[str] = (), options: Sequence[str] = ()) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._authority = Authority("edged demo CA", directory / "ca.crt", _LIFE)
        server = self._authority.issue_server(directory / "localhost.crt", directory / "localhost.key")
        tls = [
            f"cafile {server.ca}",
            f"certfile {server.cert}",
            f"keyfile {server.key}",
            "require_certificate true",
            "use_identity_as_username true",
        ]
        super().__init__(directory, [*tls, *listener], options)

    @property
    def url(self) -> str:
        """Return what goes into ``broker.url``."""
        return f"mqtts://localhost:{self.port}"

    def client(self, name: str) -> TlsFiles:
        """Issue a certificate for a client; its name is its user name at the broker."""
        return self._authority.issue_client(name, self._directory / f"{name}.crt", self._directory / f"{name}.key")


def _find_mosquitto() -> str:
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path=_SBIN)
    if program is None:
        raise MissingFileError("mosquitto is not installed", hint="sudo apt install mosquitto")
    return program


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
