"""A link between clients and their broker that an observer reads, and that fails on order: the one way to cut a link."""

from __future__ import annotations

import asyncio
import math
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

from edged.keystore.certificates import TlsFiles
from support.observer import PUBACK, Conversation, Observer

_READ = 65536
_MOST_HELD = 1000
"""Reads that are on their way, or held; then the sender has to wait, as on a real network."""
_GRAIN = 0.01


class Link:
    """Passes packets on to a broker and back. What a test orders befalls the connections of boards alone.

    :param behind: the broker's URL.
    :param observer: gets every packet: what clients say when they say it, and what they hear when they hear it.
    :param tls: certificate and key for clients that are to connect with TLS; to the broker it is plain.
    :param host: address to listen on.
    :ivar url: to connect to.
    :ivar delay: seconds that each packet is late.
    :ivar rate: bytes a second, in each direction.
    :ivar drops_acks: no acknowledgement of the broker's reaches the board.
    """

    def __init__(
        self, behind: str, observer: Observer, *, tls: TlsFiles | None = None, host: str = "127.0.0.1"
    ) -> None:
        parts = urlsplit(behind)
        self.behind = (parts.hostname, parts.port)
        self.observer = observer
        self.url = ""
        self.delay = 0.0
        self.rate = math.inf
        self.drops_acks = self.refuses = False
        self.passes = {True: asyncio.Event(), False: asyncio.Event()}
        self.errors: list[BaseException] = []
        self._tls = tls
        self._host = host
        self._passages: set[_Passage] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="link", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        assert not self.errors, self.errors

    # --- orders

    def cut(self, *, refuse: bool = False) -> None:
        """End the connections; what is held or late is lost.

        :param refuse: end those that come, too, until :meth:`restore`.
        """
        self.refuses = refuse
        self._order(*[one.end for one in set(self._passages) if one.is_boards])

    def hold(self, *, up: bool = True, down: bool = True) -> None:
        """Let nothing more through to the broker, or to the board, or either way: a connection that is half open."""
        self._order(*[self.passes[way].clear for way, held in ((True, up), (False, down)) if held])

    def restore(self) -> None:
        """Let everything through again, and first what was held."""
        self.delay, self.rate = 0.0, math.inf
        self.drops_acks = self.refuses = False
        self._order(*[one.set for one in self.passes.values()])

    def _order(self, *acts: Callable[[], None]) -> None:
        async def follow() -> None:
            for act in acts:
                act()

        asyncio.run_coroutine_threadsafe(follow(), self._loop).result(30)

    # --- its work

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        context = None
        if self._tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self._tls.cert, self._tls.key)
        for way in self.passes.values():
            way.set()
        server = await asyncio.start_server(self._accept, self._host, 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{port}" if context is None else f"mqtts://localhost:{port}"
        self._started.set()
        await self._ended.wait()
        server.close()
        while self._passages:
            for one in self._passages:
                one.end()
            await asyncio.sleep(_GRAIN)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(*self.behind)
        except OSError:
            writer.transport.abort()
            return
        passage = _Passage(self, (reader, writer), there)
        self._passages.add(passage)
        self.errors += await passage.run()
        self._passages.remove(passage)


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_Queue = asyncio.Queue[tuple[float, list[bytes]] | None]


class _Passage:
    """A client's connection, and the one to the broker in its place."""

    def __init__(self, link: Link, client: _Streams, broker: _Streams) -> None:
        self._link = link
        self._client, self._broker = client, broker
        self._conversation = Conversation(link.observer)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_boards(self) -> bool:
        """True once a board has said that it is one."""
        return self._conversation.client.startswith("edged-")

    async def run(self) -> list[BaseException]:
        """Pass everything on until both sides have ended; return errors of this program's own."""
        for up, (reader, _), (_, writer) in (
            (True, self._client, self._broker),
            (False, self._broker, self._client),
        ):
            queue: _Queue = asyncio.Queue(_MOST_HELD)
            self._tasks.append(asyncio.create_task(self._read(reader, queue, up=up)))
            self._tasks.append(asyncio.create_task(self._write(writer, queue, up=up)))
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        self.end()
        await asyncio.wait(self._tasks)
        for _, writer in (self._client, self._broker):
            writer.transport.abort()
        errors = [one.exception() for one in self._tasks if not one.cancelled()]
        return [error for error in errors if error is not None and not isinstance(error, OSError)]

    def end(self) -> None:
        """End both connections; what is on its way is lost."""
        for one in self._tasks:
            one.cancel()

    async def _read(self, reader: asyncio.StreamReader, queue: _Queue, *, up: bool) -> None:
        loop, conversation = asyncio.get_running_loop(), self._conversation
        with suppress(ConnectionError):
            while data := await reader.read(_READ):
                packets = conversation.cut(data, up=up)
                for packet in packets if up else ():
                    conversation.note(packet, up=True)
                if self._link.refuses and self.is_boards:
                    self.end()
                late = self._link.delay if self.is_boards else 0.0
                await queue.put((loop.time() + late, packets))
        await queue.put(None)

    async def _write(self, writer: asyncio.StreamWriter, queue: _Queue, *, up: bool) -> None:
        loop, link = asyncio.get_running_loop(), self._link
        while (arrived := await queue.get()) is not None:
            due, packets = arrived
            await asyncio.sleep(due - loop.time())
            for packet in packets:
                if self.is_boards:
                    await link.passes[up].wait()
                    if link.rate < math.inf:
                        await asyncio.sleep(len(packet) / link.rate)
                    if link.drops_acks and not up and packet[0] >> 4 == PUBACK:
                        continue
                if not up:
                    self._conversation.note(packet, up=False)
                writer.write(packet)
            await writer.drain()
        writer.close()
