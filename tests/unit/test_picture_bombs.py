"""Small files that hold huge pictures: refused before they are unpacked, or unpacked in bounded memory."""

from __future__ import annotations

import io
import itertools
import json
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest

ROOM = 16_000_000
"""Bytes that a picture may take beside itself, and its resized copy as float32."""
FITS, FILTERS = ("stretch", "crop", "pad"), ("nearest", "bilinear", "bicubic", "lanczos")
TARGETS = ((8, 6), (224, 224))
LINES = ((16_777_216, 1), (1, 16_777_216))
LONG = ((65_535, 64), (64, 65_535), (16_384, 256), (256, 16_384), (16_384, 1024), (1024, 16_384))
PNG_MODES = ((1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (8, 3), (8, 4), (8, 6))
"""Bits a sample and colour type: grey, RGB, palette, grey with alpha, RGB with alpha."""
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

_CHILD = """
import json, os, re, sys
from edged.base.errors import EdgedError
from edged.config.model import ModelConfig
from edged.formats.spec import Image, Input
from edged.model.reading import Decoder, Layout

def memory(name):
    return 1024 * int(re.search(rf"^{name}:\\s+(\\d+)", open("/proc/self/status").read(), re.M)[1])

def decoder(case, channels):
    image = Image(width=case["target"][0], height=case["target"][1], fit=case["fit"], filter=case["filter"])
    config = ModelConfig(name="m", channel="c1", topic="t", format=case["format"], each="window")
    return Decoder(Layout.of(config, Input(channels=channels, image=image), channels, limit=10**7))

for line in sys.stdin:
    case = json.loads(line)
    payload = open(case["file"], "rb").read()
    decode = decoder(case, tuple(case["channels"]))
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
    before = memory("VmRSS")
    try:
        decode(payload)
        said = ""
    except EdgedError as error:
        said = type(error).__name__
    print(json.dumps([memory("VmHWM") - before, said]), flush=True)
"""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int) -> bytes:
    """Return a whole PNG of zeros, a few kB of it."""
    row = 1 + (width * bits * SAMPLES[colour] + 7) // 8
    data = zlib.compress(bytes(row * height), 9 if row * height < 1 << 20 else 1)
    palette = chunk(b"PLTE", bytes(6)) if colour == 3 else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + palette + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg(width: int, height: int, mode: str, *, progressive: bool) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new(mode, (width, height)).save(buffer, "JPEG", progressive=progressive)
    return buffer.getvalue()


def bombs(draw: random.Random) -> Iterator[tuple[str, bytes, int]]:
    """Yield format, message, and the bytes that the picture itself takes in memory."""
    for bits, colour in PNG_MODES:
        sizes = [*LINES, draw.choice(LONG), (1500, 1500), *([(4096, 4096)] if bits == 8 and colour in {0, 2} else [])]
        for width, height in sizes:
            each = 1 if colour in {0, 3} and bits < 16 else 4
            yield "png", png(width, height, bits, colour), width * height * each
    for mode, progressive in itertools.product(("L", "RGB", "CMYK"), (False, True)):
        for width, height in ((65_500, 1), (1500, 1500), (4000, 3000)):
            yield "jpeg", jpeg(width, height, mode, progressive=progressive), width * height * (1 if mode == "L" else 4)


def test_no_small_picture_takes_more_than_its_own_size_and_16_mb(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Of 2 kB that hold 16777216 x 1 pixels a resize made 960 MB."""
    draw = random.Random(request.config.getoption("randomly_seed", 1))
    bomb, taken = tmp_path / "bomb", 0
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for format_, message, own in bombs(draw):
            bomb.write_bytes(message)
            for filter_ in ("lanczos", draw.choice(FILTERS)):
                width, height = draw.choice(TARGETS)
                case = {"file": str(bomb), "format": format_, "fit": draw.choice(FITS), "filter": filter_}
                case |= {"target": [width, height], "channels": draw.choice((["grey"], ["r", "g", "b"]))}
                child.stdin.write(json.dumps(case) + "\n")
                child.stdin.flush()
                peak, said = json.loads(child.stdout.readline())
                answer = 0 if said else width * height * 3 * (4 + 1)
                assert peak <= (0 if said == "ReadingShapeError" else own) + answer + ROOM, (case, own, peak, said)
                taken += not said
        child.stdin.close()
        assert child.wait() == 0
    assert taken > 20  # what cameras send is decoded


def test_a_picture_of_a_camera_is_decoded() -> None:
    message = jpeg(4000, 3000, "RGB", progressive=False)

    from edged.config.model import ModelConfig  # noqa: PLC0415  only here
    from edged.formats.spec import Image, Input  # noqa: PLC0415
    from edged.model.reading import Decoder, Layout  # noqa: PLC0415

    channels = ("r", "g", "b")
    config = ModelConfig(name="m", channel="c1", topic="t", format="jpeg", each="window")
    source = Input(channels=channels, image=Image(width=224, height=224, fit="crop"))
    assert Decoder(Layout.of(config, source, channels, limit=10**7))(message).rows.shape == (224 * 224, 3)
