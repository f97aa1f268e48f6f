"""Parsers of strangers' bytes beside packages, channels and readings: orders, files, logs, labels, models, MQTT, HTTP."""

from __future__ import annotations

import atexit
import io
import json
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

from edged.base.web.address import Listen
from edged.base.web.prometheus import MetricsServer
from edged.base.web.server import Server
from edged.board.audit import parse_export, verify
from edged.board.delivery.announcing import _parse_nonce
from edged.board.pipeline.example_selector import ExampleSelector
from edged.broker.lean_paho import ProtocolError, parse_publish
from edged.config.aggregator import TEMPLATE
from edged.config.load import load_aggregator, load_board, load_hub
from edged.federated.learned import Learned
from edged.federated.nodes import NodeRecord
from edged.federated.order import Order
from edged.federated.statement import Parties, open_statement
from edged.federated.update import Round, open_update, seal_update
from edged.federated.weights import decode, encode
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey, Signer
from edged.formats.cose.sign1 import Sign1, sign
from edged.formats.package.manifest import Training
from edged.formats.package.self_test import SelfTest
from edged.formats.package.verify import Package, Publishers, parse_recipients
from edged.hub.page.server import Page
from edged.hub.sinks.history import History
from edged.model.author import Author
from edged.model.reading.objects import compile_pointers
from edged.model.runtime.flatbuffer import is_complete
from edged.model.runtime.graph import find_state, read_graph
from edged.model.runtime.metadata import read_notes
from edged.model.samples import read_samples
from support.notes import model_notes, tensor_notes
from support.parties import NOW, Board, Hub

Function = Callable[[bytes], object]
Found = Iterator[tuple[str, list[Function], list[bytes]]]
VECTORS = Path(__file__).parents[1] / "vectors"
_KEY = PrivateKey.generate()


def vectors(name: str) -> list[Any]:
    """Return the vectors of a file."""
    found: list[Any] = json.loads((VECTORS / f"{name}.json").read_text())["vectors"]
    return found


def _keys() -> dict[str, PrivateKey]:
    keys = json.loads((VECTORS / "keys.json").read_text())["keys"]
    return {name: PrivateKey.from_scalar(bytes.fromhex(key["d"])) for name, key in keys.items()}


def _signed(take: Function, aad: list[object], signer: Signer) -> list[Function]:
    """Return what takes bytes as they are, and as what somebody with the right key has signed."""
    return [take, lambda data: take(sign(data, cbor.encode(aad), signer))]


def _with_payloads(messages: list[bytes]) -> list[bytes]:
    return [*messages, *(Sign1.parse(one, cbor.Limits(len(one), 16, 100_000)).unverified for one in messages)]


# --- learning together ---------------------------------------------------------------------------


def learning() -> Found:
    """Yield orders, what boards state and sign, updates, node records, and what was learned."""
    keys = _keys()
    aggregator, board = keys["aggregator"], keys["board sign"]
    orders = [bytes.fromhex(one["data"]) for one in vectors("order")]
    yield (
        "order",
        _signed(lambda data: Order.open(data, aggregator.public), ["edged.order.1"], aggregator),
        _with_payloads(orders),
    )

    good = next(one for one in vectors("masking") if one["name"] == "good")
    order = Order.open(bytes.fromhex(good["order"]), aggregator.public)
    stated = [bytes.fromhex(one) for one in good["statements"]]
    about = [order.run, order.round, "press-07"]
    take = lambda data: open_statement(data, order)  # noqa: E731
    gather = lambda data: Parties.gather(order, [data, *stated[1:]])  # noqa: E731
    yield "statement", [*_signed(take, ["edged.secagg.1", *about], board), gather], _with_payloads(stated)

    parties = Parties.gather(order, stated)
    confirmed = [bytes.fromhex(one) for one in good["confirmations"]]
    check = lambda data: parties.check_sum([data], good["active"], good["dead"])  # noqa: E731
    yield "confirmation", _signed(check, ["edged.secagg-sum.1", *about], board), _with_payloads(confirmed)

    weights = [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)]
    shapes, of = [one.shape for one in weights], Round(5, 2, "press-07")
    update = lambda data: open_update(data, of, board.public, aggregator, shapes)  # noqa: E731
    yield (
        "update",
        [update, lambda data: decode(data, shapes)],
        [seal_update(weights, of, board, Aead.A256GCM, aggregator.public), encode(weights)],
    )

    device = Board(sign=board, ecdh=keys["board"])
    node = {"device": device.name, "node": _KEY.public.cose(), "created": int(NOW)}
    vouched = cbor.encode(node)
    record = device.record.encode(board)
    whole = lambda data: record + sign(data, cbor.encode(["edged.node.1"]), board)  # noqa: E731
    yield "node-record", [NodeRecord.parse, lambda data: NodeRecord.parse(whole(data))], [whole(vouched), vouched]

    training = Training(
        run=5, aggregator=aggregator.public.thumbprint, rounds=3, boards=4, strategy="fedavg", masked=True
    )
    told = msgspec.to_builtins(training, builtin_types=(bytes,))
    payload = cbor.encode({"model": "bearing", "weights": encode(weights), "training": told})
    read = lambda data: Learned.read(_holding("learned", data), aggregator.public)  # noqa: E731
    seeds = [payload, sign(payload, cbor.encode(["edged.learned.1"]), aggregator)]
    yield "learned", _signed(read, ["edged.learned.1"], aggregator), seeds


# --- packages, boards and hubs --------------------------------------------------------------------


def objects() -> Found:
    """Yield grants, self-tests, exported logs, labels, and what stands on a board's own topics."""
    keys = _keys()
    good = next(one for one in vectors("package") if one["name"] == "good")
    package = bytes.fromhex(good["data"])
    publisher = keys["publisher"].public
    publishers = Publishers.of(publisher, "gearbox")

    def granted(data: bytes) -> None:
        Package.parse(memoryview(package), data).verify(publishers).unwrap(keys["board"])

    grants = [bytes.fromhex(one["grant"]) for one in vectors("package") if one["grant"]]
    yield "grant", [lambda data: parse_recipients(data, 1), granted], grants

    manifest = Package.parse(memoryview(package)).verify(publishers).unwrap(keys["board"]).manifest
    seed = bytes.fromhex(good["plaintexts"][manifest.index("self_test")])
    yield "self-test", [lambda data: SelfTest.parse(memoryview(data), manifest)], [seed]

    sign_key = keys["board sign"].public
    logs = [bytes.fromhex(one["data"]) for one in vectors("audit")]
    yield "audit", [lambda data: verify(*parse_export(data), "press-07", sign_key)], logs

    hub = Hub()
    running = Board(sign=keys["board sign"], ecdh=keys["board"]).announcer(hub)
    topic = [lambda data: running.asked(*_parse_nonce(data)), lambda data: running.saw(data, retained=True)]
    yield "own-topic", topic, [cbor.encode([hub.name, bytes(16)]), running.announcement(NOW)]

    labels: list[Function] = []
    for pointer in (None, "/a1", "/a1/0/b"):
        found = None if pointer is None else compile_pointers([pointer])
        selector: Any = SimpleNamespace(_find=found)
        labels.append(lambda data, selector=selector: ExampleSelector._read(selector, data))
    yield "label", labels, [b"broken", b'{"a1": "broken"}', b'{"a1": [{"b": [1, [2]]}]}']


# --- files that people write ----------------------------------------------------------------------

_BOARD = b"""
[broker]
url = "mqtts://broker.example:8883"
ca = "ca.pem"
[results]
hubs = ["home.hub"]
[publishers.acme]
key = "acme.pub"
models = ["gearbox"]
[[model]]
name = "gearbox"
channel = "c1"
topic = "factory/press-07/vibration"
format = "json"
each = "rows"
fields = { a1 = "/a1/0", a2 = "/v~1x" }
time = { at = "/t", unit = "s" }
[model.collect]
label = "sensor"
topic = "press/07/state"
size = "64 MB"
[federated]
aggregator = "fleet.example:8443"
record = "aggregator.pub"
ca = "fleet-ca.pem"
models = ["gearbox"]
peers = ["press-08"]
when = { hours = "22:00-06:00", idle = 0.5 }
"""
_HUB = b"""
[hub]
name = "home"
[upstream.works]
url = "mqtts://broker.example:8883"
[local]
url = "mqtt://localhost"
[page]
address = "127.0.0.1:8700"
"""
_MANIFEST = b"""
name = "gearbox"
version = 3
license = "Apache-2.0"
expires = 2031-01-01
[model]
file = "gearbox.tflite"
[input]
channels = ["a1", "a2"]
[window]
size = 4
[normalise]
method = "zscore"
mean = [0.0, 1.0]
std = [1.0, 2.0]
[output]
kind = "classifier"
labels = ["healthy", "broken"]
[self_test]
file = "self_test.npz"
tolerance = 0.01
"""


@cache
def _folder() -> Path:
    """Return a private folder in RAM, for as long as the process lasts."""
    path = Path(tempfile.mkdtemp(dir="/dev/shm"))
    atexit.register(shutil.rmtree, path)
    return path


def _holding(name: str, data: bytes) -> Path:
    """Return a file with this in it, for what only reads files."""
    path = _folder() / name
    path.write_bytes(data)
    return path


def files() -> Found:
    """Yield configurations, authors' manifests and their arrays, and recorded readings."""
    for name, load, seed in (
        ("board-toml", load_board, _BOARD),
        ("hub-toml", load_hub, _HUB),
        ("aggregator-toml", load_aggregator, TEMPLATE.format(name="fleet").encode()),
        ("manifest-toml", Author.read, _MANIFEST),
    ):
        take: Any = lambda data, load=load, name=name: load(_holding(f"{name}.toml", data))  # noqa: E731
        yield name, [take], [seed]
    values = np.arange(16, dtype=np.float32).reshape(2, 4, 2)
    packed: list[bytes] = []
    for save in (np.savez, np.savez_compressed):
        archive = io.BytesIO()
        save(archive, windows=values, scores=np.array([[0.25, 0.75], [0.5, 0.5]], np.float32))
        packed.append(archive.getvalue())
    author = cache(lambda: Author.read(_holding("author.toml", _MANIFEST)))
    yield (
        "npz",
        [
            lambda data: read_samples(_holding("rows.npz", data)),
            lambda data: author().read_self_test(_holding("self_test.npz", data).parent),
        ],
        packed,
    )
    for suffix, seed in (
        ("csv", b"a1,a2,label\n0.5,1,x\n-1e3,2,y\n"),
        ("jsonl", b'{"a1": 1, "t": 0.5}\n{"a1": 2, "t": 1}\n'),
    ):
        take = lambda data, suffix=suffix: read_samples(_holding(f"rows.{suffix}", data))  # noqa: E731
        yield f"samples-{suffix}", [take], [seed]


def models() -> Found:
    """Yield models of authors and tools, and their metadata: what reads them beside the runtimes."""

    def model(data: bytes) -> None:
        with suppress(struct.error, IndexError):  # as its callers do
            if is_complete(data):
                find_state(data, None)
                read_graph(data)

    seeds = [path.read_bytes() for path in sorted(VECTORS.with_name("models").glob("*.tflite"))]
    yield "tflite", [model], seeds
    noted = tensor_notes("p", colours=1, mean=[1.0, 2.0], std=[1.0, 2.0], labels="labels.txt")
    notes = model_notes([noted], [tensor_notes("q", labels="other.txt")], name="n", license="MIT")
    yield "tflite-metadata", [lambda data: read_notes(_holding("m.tflite", data), data)], [notes]


# --- the broker -----------------------------------------------------------------------------------


def packets() -> Found:
    """Yield PUBLISH packets of a broker, of both versions of MQTT."""

    def take(data: bytes, *, properties: bool) -> None:
        with suppress(ProtocolError):
            parse_publish(data[0] if data else 0, data[1:], properties=properties)

    seeds = [
        b"\x32\0\3a/b\0\1\0payload",
        b"\x30\0\3a/b\x0b\x01\1\x02\0\0\0\x0a\x26\0\1k\0\0payload",
        b"\x30\0\3a/bpayload",
    ]
    yield "publish", [partial(take, properties=True), partial(take, properties=False)], seeds


# --- HTTP -----------------------------------------------------------------------------------------


def http() -> Found:
    """Yield requests to a hub's page and to a daemon's numbers."""

    @cache
    def page() -> Server:
        return Page("127.0.0.1:0", "a token of sixteen", lambda: b"{}", History())._server

    @cache
    def numbers() -> Server:
        metrics = MetricsServer(Listen.parse("127.0.0.1:0"))
        metrics.show(b"edged_build_info 1\n")
        return metrics._server

    def request(server: Callable[[], Server]) -> Function:
        def take(data: bytes) -> None:
            client, served = socket.socketpair()
            with client, served:
                client.sendall(data[:60_000])
                client.shutdown(socket.SHUT_WR)
                server().finish_request(served, ("127.0.0.1", 1))

        return take

    seeds = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /data.json?since=12.5 HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: a=b; edged=x\r\nAccept: */*\r\n\r\n",
        b'HEAD /page.js HTTP/1.0\r\nIf-None-Match: "x"\r\nAuthorization: Bearer a token of sixteen\r\n\r\n',
        b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: ::1\r\n\r\n",
    ]
    yield "http", [request(page), request(numbers)], seeds
