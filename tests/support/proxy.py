"""A real nginx on a free loopback port: also with the project's own configuration, between boards and an aggregator."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import trustme

from support.ports import quiet_port
from support.process import Server

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


class Nginx(Server):
    """It, with one site, for as long as a block lasts.

    :param folder: a directory for its files.
    :param port: that the site listens on.
    :param site: its ``server`` block.
    """

    def __init__(self, folder: Path, port: int, site: str) -> None:
        self._folder = folder
        self.port = port
        (folder / "error.log").touch()
        (folder / "site.conf").write_text(site)
        (folder / "nginx.conf").write_text(_AROUND.format(folder=folder))
        super().__init__([nginx(), "-c", folder / "nginx.conf", "-p", folder], {}, lambda: listens(port))

    def start(self) -> None:
        """Start, and wait until it listens; where it does not, its own words are shown."""
        try:
            super().start()
        except AssertionError as error:
            self.stop()
            error.add_note((self._folder / "error.log").read_text())
            raise

    @property
    def log(self) -> list[tuple[int, str, str]]:
        """Return what it was asked, as status, server and request; "-" stands for no server that was troubled.

        A request stands there a moment after its answer.
        """
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


def listens(port: int) -> bool:
    """Return whether somebody listens on a loopback port."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
