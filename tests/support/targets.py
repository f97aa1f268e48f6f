"""Parsers of strangers' bytes, each as a function that may raise an EdgedError and nothing else, with valid seeds."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from edged.base.errors import EdgedError
from edged.config.model import Each, ModelConfig, RawImage, TimeField
from edged.formats.channel.announce import Announcement, announce_aad, split
from edged.formats.channel.inventory import Inventory, ServedModel
from edged.formats.channel.reading import ReadingOpener
from edged.formats.channel.receiver import Receiver
from edged.formats.channel.report import Report
from edged.formats.channel.result import Result
from edged.formats.cose import cbor, encrypt0
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import Encrypt
from edged.formats.cose.keys import ContentKey, PrivateKey, PublicKey
from edged.formats.cose.sign1 import Sign1, sign
from edged.formats.identity import Record
from edged.formats.package.manifest import Manifest
from edged.formats.package.verify import Package, Publishers
from edged.formats.readings import Format
from edged.formats.spec import Image, Input
from edged.model.reading import Decoder, Layout
from edged.model.signal.rows import Cleaner
from support.foreign import VECTORS, files, http, learning, models, objects, packets, vectors
from support.fuzz import CHANNELS, LIMIT, PICTURE, Source

Function = Callable[[bytes], object]
NOW = 1_800_000_000.0
"""The clock of the vectors."""

_DEVICE = "press-07"
_RAW = RawImage(width=PICTURE[0], height=PICTURE[1], order="grey")
_SEEDS = 40


def _bytes_of(name: str) -> list[bytes]:
    """Return every message of a file of vectors, of the bad ones too."""
    found = []
    for vector in vectors(name):
        steps = [step["data"] for step in vector.get("steps", [vector] if "data" in vector else [])]
        found += [bytes.fromhex(one) for one in (*steps, *vector.get("messages", []))]
    return list(dict.fromkeys(found))


def _inner(messages: list[bytes]) -> list[bytes]:
    """Return what was signed in those of ``messages`` that begin with a COSE_Sign1."""
    found = []
    for message in messages:
        with contextlib.suppress(EdgedError):
            limits = cbor.Limits(len(message), 16, 100_000)
            found.append(Sign1.parse(message[: cbor.scan(message, 0, limits)], limits).unverified)
    return list(dict.fromkeys(found))


class _Keys:
    """Keys that the vectors were made with, and strangers' where any do."""

    def __init__(self) -> None:
        keys = json.loads((VECTORS / "keys.json").read_text())["keys"]
        self.named = {name: PrivateKey.from_scalar(bytes.fromhex(key["d"])) for name, key in keys.items()}
        publisher = self.named["publisher"].public
        self.publishers = Publishers.of(publisher, "gearbox")
        self.content = ContentKey(Aead.A256GCM, bytes(32))
        self.signer = PrivateKey.generate()

    def receiver(self) -> Receiver:
        enrolled = json.loads((VECTORS / "announcement.json").read_text())["enrolled"]
        return Receiver(
            self.named["hub"], self.named["hub sign"].public.thumbprint, [Record.parse(bytes.fromhex(enrolled))]
        )


def _functions() -> Iterator[tuple[str, list[Function], list[bytes]]]:
    keys = _Keys()
    box, opener = encrypt0.Box(keys.content, b"\x80"), ReadingOpener(keys.content, "press-07/vibration", "c1")

    def package(data: bytes) -> None:
        parsed = Package.parse(memoryview(data))
        verified = parsed.verify(keys.publishers)
        verified.check_ciphertexts()
        verified.unwrap(keys.named["board"])

    def announcement(data: bytes) -> None:
        (signed,) = split(sign(data, announce_aad(_DEVICE), keys.signer))
        Announcement.parse(signed, _DEVICE, keys.signer.public)

    def hub(data: bytes) -> None:
        receiver = keys.receiver()
        for take in (lambda: receiver.announce(_DEVICE, data, NOW), lambda: receiver.open("e/press-07/c1", data, NOW)):
            with contextlib.suppress(EdgedError):
                take()

    def of_board(data: bytes) -> None:
        receiver = keys.receiver()
        receiver.announce(_DEVICE, announced[0], NOW)
        for take in (receiver.open_report, receiver.open_inventory):
            with contextlib.suppress(EdgedError):
                take(f"e/{_DEVICE}/health", data, NOW)

    announced = _bytes_of("announcement")
    packages = _bytes_of("package")
    yield (
        "strict-cbor",
        [cbor.decode, cbor.decode_canonical, lambda data: cbor.split_sequence(data, cbor.TRUST, 4)],
        _bytes_of("cbor"),
    )
    yield "sign1", [Sign1.parse, lambda data: Sign1.parse(data).verify(keys.signer.public, b"\x80")], _bytes_of("sign1")
    yield (
        "encrypt0",
        [
            lambda data: box.open(data, LIMIT),
            lambda data: encrypt0.peek_kid(data, LIMIT),
            lambda data: opener.open(data, LIMIT),
        ],
        [*_bytes_of("encrypt0"), *_bytes_of("reading")],
    )
    yield (
        "encrypt",
        [lambda data: Encrypt.parse(cbor.decode(data), 4).unwrap(keys.named["board"], None)],
        _bytes_of("encrypt"),
    )
    yield (
        "keys",
        [lambda data: ContentKey.parse(cbor.decode_canonical(data)), lambda data: PublicKey.parse(cbor.decode(data))],
        _bytes_of("key"),
    )
    signed_record = lambda data: Record.parse(sign(data, cbor.encode(["edged.enrol.1"]), keys.named["board sign"]))  # noqa: E731
    records = _bytes_of("record")
    yield "record", [Record.parse, signed_record], [*records, *_inner(records)]
    yield "package", [package], packages
    yield "manifest", [Manifest.parse], _inner(packages)
    yield "announcement", [announcement], _inner(announced)
    yield "hub", [hub], [*announced, *_bytes_of("result")]
    yield (
        "result",
        [Result.parse],
        [
            cbor.encode(
                {
                    "model": "gearbox",
                    "version": 3,
                    "digest": bytes(32),
                    "time": NOW,
                    "count": 1,
                    "late": False,
                    "scores": [0.25, 0.75],
                    "input": [bytes(8), 1, 2],
                    "pad": bytes(256),
                    "label": "broken",
                    "score": 0.75,
                    "source": "press-07",
                    "values": {"wear": 0.5, "heat": 41.5},
                    "counts": {"person": 1},
                    "boxes": [["person", 0.75, 0.0, 0.25, 0.5, 1.0]],
                    "tune": {"x": 0.5},
                }
            )
        ],
    )
    yield "board-to-hub", [of_board], [*_bytes_of("report"), *_bytes_of("inventory")]
    report = Report(NOW, 1.5, 3, 2, 0.5, 1, 0, 0, 0, 0, 0, 0, "", {"c1": ("gearbox", 3)})
    yield "report", [Report.parse], [report.encode()]
    served = ServedModel("c1", "gearbox", 3, 3, "classifier", labels=("healthy", "broken"))
    yield "inventory", [Inventory.parse], [Inventory("0.1.0", 30.0, (served,)).encode()]


def _readings() -> Iterator[tuple[str, list[Function], list[bytes]]]:
    source = Source(0)
    clock, day = TimeField(at="/t"), TimeField(at="t", unit="iso")
    layouts: dict[Format, list[dict[str, Any]]] = {
        "json": [{}, {"time": clock}, {"fields": {"a1": "/a1/0", "a2": "/v~1x"}}],
        "csv": [{}, {"time": day}],
        "text": [{}],
        "cbor": [{}, {"time": clock}],
        "f32le": [{}],
        "png": [{}],
        "jpeg": [{}],
        "raw": [{"image": _RAW}],
    }
    for format_, tables in layouts.items():
        picture = format_ in {"png", "jpeg", "raw"}
        ways: list[Each] = ["window"] if picture else ["row", "rows", "window"]
        functions = [decoder(format_, each, **table) for table in tables for each in ways]
        yield format_, functions, [source.reading(format_, each) for each in ways for _ in range(_SEEDS // len(ways))]


def decoder(format_: Format, each: Each, **table: Any) -> Function:
    """Return what takes the readings of a channel."""
    image = Image(width=PICTURE[0], height=PICTURE[1]) if format_ in {"png", "jpeg", "raw"} else None
    channels = CHANNELS if image is None else ("grey",)
    chain = Input(channels=channels, image=image, missing="hold" if format_ in {"json", "cbor"} else "refuse")
    config = ModelConfig(name="m", channel="c1", topic="t", format=format_, each=each, **table)
    decode, clean = Decoder(Layout.of(config, chain, channels, LIMIT)), Cleaner(chain)
    return lambda data: clean(decode(data).rows)


class Target:
    """One kind of bytes, and all that takes it.

    :ivar longest: seconds of CPU that one function took for one message.
    :ivar opened: how often a function took a message.
    """

    def __init__(self, name: str, functions: list[Function], seeds: list[bytes]) -> None:
        self.name = name
        self.seeds = seeds
        self.longest = 0.0
        self.opened = 0
        self.functions = functions

    def __call__(self, data: bytes) -> None:
        """Hand ``data`` to each function. What is no EdgedError comes out."""
        for function in self.functions:
            began = time.process_time()
            with contextlib.suppress(EdgedError):
                function(data)
                self.opened += 1
            self.longest = max(self.longest, time.process_time() - began)


def targets() -> dict[str, Target]:
    """Return all of them by name."""
    found = (*_functions(), *_readings(), *learning(), *objects(), *files(), *models(), *packets(), *http())
    return {name: Target(name, *rest) for name, *rest in found}
