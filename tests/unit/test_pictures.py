"""Pictures as readings: colours in the model's order, sizes as the manifest wants them, and nothing unpacked that is too large."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps
import pytest

from edged.base.errors import ConfigError, ReadingFormatError, ReadingShapeError
from edged.config.model import ModelConfig, RawImage
from edged.formats.readings import Format
from edged.formats.spec import Image, Input
from edged.model.reading import Decoder, Layout

PIXELS = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)


def decoder(format_: Format, *channels: str, raw: RawImage | None = None, **image: Any) -> Decoder:
    source = Input(channels=channels, image=Image(**{"width": 8, "height": 6, **image}))
    config = ModelConfig(name="m", channel="c1", topic="t", format=format_, each="window", image=raw)
    return Decoder(Layout.of(config, source, channels, limit=10**6))


def packed(pixels: npt.NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_picture_of_the_models_own_size_comes_pixel_by_pixel() -> None:
    rows = decoder("png", "r", "g", "b")(packed(PIXELS)).rows

    assert (rows.dtype, rows.shape) == (np.float32, (48, 3))
    assert rows.tolist() == PIXELS.reshape(48, 3).tolist()


def test_colours_stand_in_the_manifests_order() -> None:
    assert decoder("png", "b", "g", "r")(packed(PIXELS)).rows.tolist() == PIXELS.reshape(48, 3)[:, ::-1].tolist()
    assert decoder("png", "g")(packed(PIXELS)).rows.ravel().tolist() == PIXELS[..., 1].ravel().tolist()


def test_grey_is_luma() -> None:
    expected = np.asarray(PIL.Image.fromarray(PIXELS).convert("L"))

    assert decoder("png", "grey")(packed(PIXELS)).rows.ravel().tolist() == expected.ravel().tolist()
    assert decoder("png", "r", "g", "b")(packed(expected)).rows[:, 1].tolist() == expected.ravel().tolist()


def test_transparency_and_palettes_are_seen_through() -> None:
    alpha = np.dstack((PIXELS, np.full(PIXELS.shape[:2], 128, np.uint8)))
    assert decoder("png", "r", "g", "b")(packed(alpha)).rows.tolist() == PIXELS.reshape(48, 3).tolist()

    palette = PIL.Image.fromarray(PIXELS).convert("P")
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    expected = np.asarray(palette.convert("RGB")).reshape(48, 3)
    assert decoder("png", "r", "g", "b")(buffer.getvalue()).rows.tolist() == expected.tolist()


def test_jpeg_is_what_pillow_makes_of_it() -> None:
    message = packed(PIXELS, "JPEG", quality=90)
    expected = np.asarray(PIL.Image.open(io.BytesIO(message))).reshape(48, 3)

    assert decoder("jpeg", "r", "g", "b")(message).rows.tolist() == expected.tolist()


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(4, 4), (16, 9), (3, 11)])
def test_other_sizes_are_resized_as_the_manifest_says(
    fit: Literal["stretch", "crop", "pad"], size: tuple[int, int]
) -> None:
    picture = PIL.Image.fromarray(PIXELS)
    how = {
        "stretch": lambda: picture.resize(size, PIL.Image.Resampling.BICUBIC),
        "crop": lambda: PIL.ImageOps.fit(picture, size, PIL.Image.Resampling.BICUBIC),
        "pad": lambda: PIL.ImageOps.pad(picture, size, PIL.Image.Resampling.BICUBIC, color=0),
    }
    found = decoder("png", "r", "g", "b", width=size[0], height=size[1], fit=fit, filter="bicubic")(packed(PIXELS)).rows

    assert found.tolist() == np.asarray(how[fit]()).reshape(-1, 3).tolist()


@pytest.mark.parametrize("order", ["rgb", "bgr", "grey"])
def test_raw_bytes_are_what_the_site_says(order: Literal["rgb", "bgr", "grey"]) -> None:
    bytes_ = {"rgb": PIXELS, "bgr": PIXELS[..., ::-1], "grey": PIXELS[..., 0]}[order]
    decode = decoder("raw", "r", "g", "b", raw=RawImage(width=8, height=6, order=order))

    expected = PIXELS if order != "grey" else np.repeat(PIXELS[..., :1], 3, axis=2)
    assert decode(bytes_.tobytes()).rows.tolist() == expected.reshape(48, 3).tolist()
    with pytest.raises(ReadingShapeError, match=r"a raw picture has \d+ bytes, 8 x 6 take \d+"):
        decode(bytes_.tobytes()[:-1])


@pytest.mark.parametrize(
    "message",
    [b"", b"\x89PNG\r\n\x1a\n", packed(PIXELS)[:-60], packed(PIXELS)[:40], packed(PIXELS, "JPEG"), packed(PIXELS, "BMP"), b"\0" * 1000],
    ids=["nothing", "head", "cut", "cut early", "JPEG", "BMP", "zeros"],
)  # fmt: skip
def test_what_is_no_whole_picture_of_the_configured_format_is_refused(message: bytes) -> None:
    with pytest.raises(ReadingFormatError, match="a reading is no whole PNG picture"):
        decoder("png", "r", "g", "b")(message)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int) -> bytes:
    """Return a small file that says it holds a picture of this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(5000, 4000), (100_000, 1000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(size: tuple[int, int]) -> None:
    with pytest.raises(ReadingShapeError, match=r"a picture has \d+ x \d+ pixels, more than"):
        decoder("png", "r", "g", "b")(png_of(*size))


def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_is_unpacked() -> None:
    """Each goes over the whole picture: 200 kB of them could take five seconds."""
    message = packed(PIXELS, "JPEG", progressive=True)
    scan = message[message.rindex(b"\xff\xda") : -2]
    assert decoder("jpeg", "r", "g", "b")(message + scan).rows.shape == (48, 3)
    with pytest.raises(ReadingShapeError, match="a JPEG picture has more scans, texts or colour profiles than 32"):
        decoder("jpeg", "r", "g", "b")(message[:-2] + scan * 1000 + message[-2:])


def test_a_png_of_many_colour_profiles_is_refused_before_they_are_unpacked() -> None:
    """Each may hold a megabyte in a thousand bytes: 900 kB of them could take two seconds."""
    message = packed(PIXELS)
    behind = message.index(b"IDAT") - 4
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1000)))
    assert decoder("png", "r", "g", "b")(message[:behind] + profile + message[behind:]).rows.shape == (48, 3)
    with pytest.raises(ReadingShapeError, match="a PNG picture has more scans, texts or colour profiles than 4"):
        decoder("png", "r", "g", "b")(message[:behind] + profile * 900 + message[behind:])


def test_pillow_warns_nobody_of_an_odd_file() -> None:
    """On standard error, past the log."""
    message = packed(PIXELS, "JPEG")
    odd = message[:2] + b"\xff\xe2\x00\x0aMPF\0\0\0\0\0" + message[2:]
    assert decoder("jpeg", "r", "g", "b")(odd).rows.shape == (48, 3)


def test_a_site_that_sends_pictures_needs_a_model_that_takes_them() -> None:
    config = ModelConfig(name="m", channel="c1", topic="t", format="png", each="window")

    with pytest.raises(ConfigError, match="the model takes no pictures: it has no"):
        Decoder(Layout.of(config, Input(channels=("r",)), ("r",), limit=1000))


@pytest.mark.parametrize(
    "chunk", [b"iCCP", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"eXIf"]
)
@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_a_png_with_a_chunk_cut_short_is_decoded_or_refused(chunk: bytes, size: int) -> None:
    """Pillow raised IndexError for a colour profile of no bytes: a picture of 100 bytes ended the daemon."""
    whole, content = packed(PIXELS), b"\0" * size
    broken = size.to_bytes(4, "big") + chunk + content + zlib.crc32(chunk + content).to_bytes(4, "big")
    for at in (whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4):
        with contextlib.suppress(ReadingFormatError):
            decoder("png", "r", "g", "b")(whole[:at] + broken + whole[at:])
