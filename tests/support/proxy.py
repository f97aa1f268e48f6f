"""A real nginx on a free loopback port: also with the project's own configuration, between boards and an aggregator."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

import trustme

from support.ports import quiet_port
from support.waiting import wait_until

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "aggregator" / "nginx.conf"
_AROUND = """
daemon off;
user root;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    log_format asked '$status $upstream_addr $request_method $request_uri';
    access_log {folder}/access.log asked;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


def nginx() -> str | None:
    """Return the program; None where it is not installed."""
    return shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


def write_certificate(folder: Path) -> Path:
    """Write ``cert.pem`` and ``key.pem`` for the loopback; return ``ca.pem`` beside them, of who vouches for it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return folder / "ca.pem"


class Nginx:
    """It, with one site.

    :param folder: a directory for its files.
    :param port: that the site listens on.
    :param site: its ``server`` block.
    """

    def __init__(self, folder: Path, port: int, site: str) -> None:
        self._folder = folder
        self.port = port
        (folder / "site.conf").write_text(site)
        (folder / "nginx.conf").write_text(_AROUND.format(folder=folder))

    def __enter__(self) -> Self:
        program = nginx()
        assert program is not None
        command = [program, "-c", str(self._folder / "nginx.conf"), "-p", str(self._folder)]
        with (self._folder / "said").open("wb") as said:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            wait_for_port(self.port, self._process, self._folder / "error.log")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)

    @property
    def log(self) -> list[tuple[int, str, str]]:
        """What it was asked: status, address of the server behind it or "-" where that was not troubled, and the request."""
        lines = (line.split(" ", 2) for line in (self._folder / "access.log").read_text().splitlines())
        return [(int(status), behind, request) for status, behind, request in lines]


class Proxy(Nginx):
    """The proxy of an aggregator, in front of a SuperLink on loopback.

    :param folder: a new directory for its files.
    :param behind: the SuperLink's port.
    :param behind_ca: who vouches for the SuperLink's certificate.
    :ivar address: HOST:PORT; ``ca`` is the file of who vouches for it.
    """

    def __init__(self, folder: Path, behind: int, behind_ca: Path) -> None:
        folder.mkdir()
        self.ca = write_certificate(folder)
        port = quiet_port()
        self.address = f"127.0.0.1:{port}"
        names = {
            "listen 8443 ssl": f"listen {self.address} ssl",
            "    listen [::]:8443 ssl;\n": "",
            "/etc/edged/tls/aggregator.crt": f"{folder}/cert.pem",
            "/etc/edged/tls/aggregator.key": f"{folder}/key.pem",
            "/var/lib/edged-aggregator/tls/ca.pem": str(behind_ca),
            "127.0.0.1:9092": f"127.0.0.1:{behind}",
        }
        site = CONFIGURATION.read_text()
        for name, here in names.items():
            assert site.count(name) == 1, name
            site = site.replace(name, here)
        super().__init__(folder, port, site)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path, timeout: float = 60) -> None:
    """Wait until somebody listens on a loopback port."""

    def said() -> str:
        return log.read_text() if log.exists() else ""

    def listens() -> bool:
        assert process.poll() is None, f"it left with {process.returncode}: {said()}"
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens, timeout, told=lambda: f"nobody listens on {port}: {said()}")
