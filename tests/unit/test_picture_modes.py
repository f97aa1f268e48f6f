"""Pictures of every mode: each brightness and colour that a file holds arrives, or the file is refused by name.

PNGs are written here by hand, and read by nothing but edged.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import ReadingFormatError, ReadingShapeError
from edged.config.model import ModelConfig
from edged.formats.readings import Format
from edged.formats.spec import Image, Input
from edged.model.reading import Decoder, Layout

Floats = npt.NDArray[np.float32]
Colour = int | tuple[int, ...]
Samples = npt.NDArray[np.int64]
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
BANDS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}
MODES = [(kind, depth) for kind, depths in DEPTHS.items() for depth in depths]


def png(samples: Samples, kind: int, depth: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Write samples [height, width, bands] as a PNG (W3C, Portable Network Graphics, 7.2 and 11)."""
    height, width, _ = samples.shape
    rows = b""
    for row in samples.reshape(height, -1):
        bits = "".join(f"{sample:0{depth}b}" for sample in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    every = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in every
    )


def read(
    payload: bytes, channels: Sequence[str], width: int, height: int, format_: Format = "png", **image: Any
) -> Floats:
    source = Input(channels=tuple(channels), image=Image(width=width, height=height, **image))
    config = ModelConfig(name="m", channel="c1", topic="t", format=format_, each="window")
    return Decoder(Layout.of(config, source, source.channels, limit=10**6))(payload).rows.reshape(height, width, -1)


def luma(colours: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """ITU-R 601."""
    return colours @ np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize(("kind", "depth"), MODES)
@pytest.mark.parametrize("channels", [("r", "g", "b"), ("grey",)], ids=["rgb", "grey"])
@given(data=st.data())
def test_every_brightness_and_colour_of_a_png_arrives(
    kind: int, depth: int, channels: tuple[str, ...], data: st.DataObject
) -> None:
    width, height = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    most = (1 << depth) - 1
    values = st.integers(0, most) if depth < 16 else st.sampled_from([0, 1, 255, 256, 257, 32768, 65279, 65535])
    flat = data.draw(st.lists(values, min_size=width * height * BANDS[kind], max_size=width * height * BANDS[kind]))
    samples = np.array(flat, np.int64).reshape(height, width, BANDS[kind])
    chunks = []
    if kind == PALETTE:
        palette = np.array(
            data.draw(st.lists(st.integers(0, 255), min_size=3 * most + 3, max_size=3 * most + 3))
        ).reshape(-1, 3)
        chunks = [(b"PLTE", palette.astype(np.uint8).tobytes())]
        colours = palette[samples[..., 0]].astype(float)
    else:
        shades = samples[..., :3] if kind in (RGB, RGBA) else np.repeat(samples[..., :1], 3, axis=2)
        colours = shades * 255 / most

    found = read(png(samples, kind, depth, *chunks), channels, width, height)

    expected = colours if len(channels) == 3 else luma(colours)[..., None]
    assert np.abs(found - expected).max() <= 1.0


@pytest.mark.parametrize("kind", [GREY, RGB, PALETTE])
def test_a_colour_that_is_declared_transparent_is_itself(kind: int) -> None:
    chunks = {
        GREY: [(b"tRNS", b"\0\x07")],
        RGB: [(b"tRNS", b"\0\x07\0\x08\0\x09")],
        PALETTE: [(b"PLTE", bytes(range(30))), (b"tRNS", b"\0\x80")],
    }[kind]
    samples = np.array([[[7, 8, 9][: BANDS[kind]], [1, 2, 3][: BANDS[kind]]]])

    found = read(png(samples, kind, 8, *chunks), ("r", "g", "b"), 2, 1)

    expected = {GREY: [[7, 7, 7], [1, 1, 1]], RGB: [[7, 8, 9], [1, 2, 3]], PALETTE: [[21, 22, 23], [3, 4, 5]]}[kind]
    assert found[0].tolist() == expected


def test_a_deep_grey_picture_is_resized_in_its_own_brightness() -> None:
    samples = np.full((8, 8, 1), 257 * 100)

    assert (read(png(samples, GREY, 16), ("grey",), 4, 4) == 100).all()


# --- JPEG ------------------------------------------------------------------------------------


def jpeg(mode: str, colour: Colour, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new(mode, (8, 8), colour).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("RGB", (200, 100, 50), (200, 100, 50)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("CMYK", (0, 0, 255, 128), (127, 127, 0)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_every_colour_of_a_jpeg_arrives(mode: str, colour: Colour, expected: tuple[int, int, int]) -> None:
    found = read(jpeg(mode, colour), ("r", "g", "b"), 8, 8, "jpeg")
    grey = read(jpeg(mode, colour), ("grey",), 8, 8, "jpeg")

    assert np.abs(found - expected).max() <= 3
    assert np.abs(grey - luma(np.array(expected, float))).max() <= 3


def test_inks_that_may_be_inverted_are_refused_by_name() -> None:
    message = jpeg("CMYK", (255, 0, 0, 0))
    at = message.index(b"\xff\xee")
    without = message[:at] + message[at + 2 + struct.unpack_from(">H", message, at + 2)[0] :]

    with pytest.raises(ReadingShapeError, match="CMYK without Adobe's marker"):
        read(without, ("r", "g", "b"), 8, 8, "jpeg")


# --- orientation -----------------------------------------------------------------------------

PIXELS = np.arange(2 * 3).reshape(2, 3, 1) * 40
UPRIGHT = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.transpose(1, 0, 2),
    6: PIXELS[::-1].transpose(1, 0, 2),
    7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
    8: PIXELS[:, ::-1].transpose(1, 0, 2),
    9: PIXELS,
}
"""Each stored picture as people see it (CIPA DC-008, Orientation)."""


def exif(orientation: int) -> bytes:
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("wanted", ["stored", "exif"])
def test_a_picture_is_turned_upright_where_the_author_wants_it(
    orientation: int, wanted: Literal["stored", "exif"]
) -> None:
    expected = UPRIGHT[orientation] if wanted == "exif" else PIXELS
    height, width, _ = expected.shape

    found = read(png(PIXELS, GREY, 8, (b"eXIf", exif(orientation))), ("grey",), width, height, orientation=wanted)

    assert found.tolist() == expected.tolist()


def test_exif_data_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ReadingFormatError, match="no whole PNG picture"):
        read(png(PIXELS, GREY, 8, (b"eXIf", b"MM")), ("grey",), 3, 2, orientation="exif")


@pytest.mark.parametrize("damaged", [b"", exif(6)[:12], b"II" + exif(6)[2:], exif(6).replace(b"\x01\x12", b"\xff\xff")])
def test_exif_data_without_an_orientation_turn_nothing(damaged: bytes) -> None:
    found = read(png(PIXELS, GREY, 8, (b"eXIf", damaged)), ("grey",), 3, 2, orientation="exif")

    assert found.tolist() == PIXELS.tolist()


def test_a_jpegs_orientation_counts_too() -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.repeat(np.repeat(np.array([[0, 255]], np.uint8), 16, 0), 16, 1)).save(
        buffer, "JPEG", quality=95, exif=b"Exif\0\0" + exif(6)
    )

    found = read(buffer.getvalue(), ("grey",), 16, 32, "jpeg", orientation="exif")

    assert found[:16].max() < 20
    assert found[16:].min() > 235


def test_a_picture_that_is_too_tall_once_it_lies_upright_is_refused() -> None:
    wide = np.zeros((1, 600, 1), np.int64)

    with pytest.raises(ReadingShapeError, match="more than 512 times as wide or high"):
        read(png(wide, GREY, 8, (b"eXIf", exif(6))), ("grey",), 600, 1, orientation="exif")
