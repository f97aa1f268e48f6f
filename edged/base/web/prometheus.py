"""A daemon's numbers for Prometheus: as text (format 0.0.4), and served as ``/metrics``.

A thread of its own serves the text that the main loop rendered last.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import HTTPServer
from pathlib import Path
from typing import Any, Literal, TypeAlias

from edged import __version__
from edged.base.errors import ConfigError
from edged.base.web.address import Listen
from edged.base.web.server import Request, Response, Server

TYPE = "text/plain; version=0.0.4"
STALE = 60.0
"""Seconds after which numbers are no longer served: a scraper then sees that the main loop is stuck."""
_MODE = 0o660
_STACK = 512 * 1024
"""Bytes of the thread's stack: where all memory is locked, the usual 8 MB would be in RAM, too."""


@dataclass(frozen=True)
class Family:
    """A metric: its name, kind, help text, and the names of its labels."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


Values: TypeAlias = Mapping[tuple[str, ...], float]
"""Numbers by the values of their labels."""

_COMPONENT = ("component",)
"""A board and a hub may share a machine, and a file of node_exporter's: no name may be there twice."""
BUILD = Family("edged_build_info", "gauge", "1, with the release that runs.", ("component", "version"))
START = Family("edged_start_time_seconds", "gauge", "When the process started, Unix seconds.", _COMPONENT)
CPU = Family("edged_cpu_seconds_total", "counter", "CPU time that the process used.", _COMPONENT)
MEMORY = Family("edged_resident_memory_bytes", "gauge", "Memory of the process that is in RAM.", _COMPONENT)
PROCESS = (BUILD, START, CPU, MEMORY)

_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_STARTED = time.time()


def one(value: float) -> Values:
    """Return the value of a family without labels."""
    return {(): value}


def process_values(component: Literal["board", "hub"]) -> dict[Family, Values]:
    """Return the release, start time, CPU time and memory of this process."""
    name = (component,)
    values: dict[Family, Values] = {
        BUILD: {(component, __version__): 1},
        START: {name: _STARTED},
        CPU: {name: time.process_time()},
    }
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        values[MEMORY] = {name: pages * os.sysconf("SC_PAGE_SIZE")}
    return values


def render(families: Mapping[Family, Values]) -> bytes:
    """Return numbers as text. A family without values is left out."""
    return "".join(line for family, values in families.items() for line in _lines(family, values)).encode()


def _lines(family: Family, values: Values) -> Iterable[str]:
    if values:
        yield f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
    for labels, value in values.items():
        pairs = (f'{name}="{text.translate(_ESCAPED)}"' for name, text in zip(family.labels, labels, strict=True))
        shown = f"{{{','.join(pairs)}}}" if labels else ""
        yield f"{family.name}{shown} {float(value)!r}\n"


class MetricsServer:
    """Serves the numbers that :meth:`show` was given last, until :meth:`close`.

    :raises ConfigError: the address cannot be used.
    """

    def __init__(self, listen: Listen) -> None:
        self._text = b""
        self._at = -STALE
        self._listen = listen
        self._names = None if listen.path else {"localhost", listen.host, f"[{listen.host}]"}
        try:
            if listen.path:
                _make_room(Path(listen.path))
            family = socket.AF_UNIX if listen.path else socket.AF_INET6 if ":" in listen.host else socket.AF_INET
            self._server = _OneByOne(family, listen.path or (listen.host, listen.port), self._answer)
        except OSError as error:
            raise ConfigError(f"metrics.listen: {listen} cannot be used: {error.strerror or error}") from error
        before = threading.stack_size(_STACK)
        try:
            self._thread = threading.Thread(target=self._server.serve_forever, name="edged-metrics", daemon=True)
            self._thread.start()
        finally:
            threading.stack_size(before)

    def show(self, text: bytes) -> None:
        """Serve these numbers from now on."""
        self._text, self._at = text, time.monotonic()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self._listen.path:
            Path(self._listen.path).unlink(missing_ok=True)

    def _answer(self, request: Request) -> Response:
        if request.method not in {"GET", "HEAD"}:
            return Response(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD"})
        if self._names is not None and not self._is_addressed(request.headers.get_all("Host", [])):
            return Response(HTTPStatus.MISDIRECTED_REQUEST)
        if request.path != "/metrics":
            return Response(HTTPStatus.NOT_FOUND)
        if time.monotonic() - self._at > STALE:
            return Response(HTTPStatus.SERVICE_UNAVAILABLE)
        return Response(body=self._text, type=TYPE)

    def _is_addressed(self, hosts: list[str]) -> bool:
        """Return True if a request names this machine: a web page's name may resolve to 127.0.0.1 (DNS rebinding)."""
        return len(hosts) == 1 and hosts[0].removesuffix(f":{self._listen.port}") in (self._names or ())


class _OneByOne(Server):
    """Takes one connection after the other, in the thread that serves; its socket is open to owner and group alone."""

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  as socketserver has them
        """Serve a connection, within the deadlines of each."""
        HTTPServer.process_request(self, request, client_address)

    def server_bind(self) -> None:
        """Bind; a socket gets its name last, so that it is never there with another mode."""
        if self.address_family != socket.AF_UNIX:
            super().server_bind()
            return
        path = Path(str(self.server_address))
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        self.socket.bind(str(new))
        new.chmod(_MODE)
        new.replace(path)


def _make_room(path: Path) -> None:
    """Remove nothing, and refuse a path that holds anything but a stale socket.

    :raises OSError: it is something else, or somebody listens on it.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(0, "there is something else than a socket")
        with socket.socket(socket.AF_UNIX) as probe, suppress(ConnectionRefusedError):
            probe.settimeout(1)
            probe.connect(os.fspath(path))
            raise FileExistsError(0, "another process listens there")
