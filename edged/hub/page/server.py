"""The page for people: the hub at this moment, and the last hour.

The page speaks plain HTTP. To reach it from elsewhere, use a tunnel (``ssh -L``) or a proxy with TLS.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from importlib import resources
from threading import Thread
from urllib.parse import parse_qs

from edged.base.errors import ConfigError
from edged.base.events import Event
from edged.base.web.server import Request, Response, Server
from edged.hub.page.access import Access, PageAddress
from edged.hub.sinks.history import History

_LOG = logging.getLogger(__name__)

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


@dataclass(frozen=True)
class _StaticFile:
    """A file of the page, as it was installed."""

    content: bytes
    type: str

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


class Page:
    """Serves the page in threads of its own, from now until :meth:`close`.

    Its routes: ``/`` and the files that it needs, and ``/data.json?since=TIME``: ``{"now": Unix seconds, "hub": what
    data returned, "history": {device: {place: [[time, value, label], ...]}}}``, with points since TIME only.

    :param address: ``HOST:PORT``; port 0 takes a free one.
    :param token: the secret that callers must know; required unless the address is this machine's own.
    :param data: returns the hub's snapshot as a JSON object. Called in the threads that serve.
    :param history: the points of the charts.
    :param proxy: the numeric address of a proxy that lets in only whom it knows, and may show the page within its own.
    :raises ConfigError: the address cannot be used, or requires a token, or the token can be guessed.
    """

    def __init__(
        self, address: str, token: str | None, data: Callable[[], bytes], history: History, proxy: str | None = None
    ) -> None:
        self._data = data
        self._history = history
        self._failing = False
        self._files = _read_files()
        at = PageAddress.parse(address)
        self._access = Access(at, token, proxy)
        try:
            self._server = Server(at.family, (at.host, at.port), self._answer)
        except OSError as error:
            raise ConfigError(f"page.address: {address} cannot be used: {error.strerror or error}") from error
        self.url = f"http://{at.name}:{self._server.server_address[1]}/"
        self._thread = Thread(target=self._server.serve_forever, name="edged-page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, request: Request) -> Response:
        return replace(self._answer_one(request), framed=self._access.is_proxied(request))

    def _answer_one(self, request: Request) -> Response:
        if request.method not in {"GET", "HEAD"}:
            return Response(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD"})
        if refused := self._access.refuse(request):
            return refused
        if request.path == "/data.json":
            return self._answer_data(request.query)
        if file := self._files.get(request.path):
            return _answer_file(file, request)
        return Response(HTTPStatus.NOT_FOUND)

    def _answer_data(self, query: str) -> Response:
        try:
            since = float(parse_qs(query).get("since", ["0"])[-1])
        except ValueError:
            since = math.nan
        if not math.isfinite(since):
            return Response(HTTPStatus.BAD_REQUEST)
        try:
            now = time.time()
            history = json.dumps(self._history.shown(now, since), separators=(",", ":"))
            body = b'{"now":%.3f,"hub":%b,"history":%b}' % (now, self._data(), history.encode())
        except Exception:  # noqa: BLE001  whatever it is: the page says so, and asks again
            if not self._failing:
                _LOG.exception("the page has nothing to show", extra=Event.INTERNAL_ERROR.about())
            self._failing = True
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR)
        self._failing = False
        return Response(body=body, type="application/json")


def _read_files() -> dict[str, _StaticFile]:
    """Return the files of the page by path."""
    folder = resources.files(__package__)
    parts = (part for part in folder.iterdir() if part.is_file())
    found = {part.name: part for part in parts if part.name[part.name.rfind(".") :] in _TYPES}
    files = {
        f"/{name}": _StaticFile(part.read_bytes(), _TYPES[name[name.rfind(".") :]]) for name, part in found.items()
    }
    files["/"] = files.pop("/page.html")
    return files


def _answer_file(file: _StaticFile, request: Request) -> Response:
    headers = {"ETag": file.tag, "Cache-Control": "no-cache"}
    known = request.headers.get("If-None-Match", "")
    if file.tag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(HTTPStatus.NOT_MODIFIED, b"", file.type, headers)
    return Response(body=file.content, type=file.type, headers=headers)
