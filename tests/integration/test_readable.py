"""What is packed can be installed, and what is answered can be opened: both are read back before anything is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.cli import publisher
from edged.formats.channel.result import MOST_SCORES
from edged.formats.package.pack import Chunks
from support.site import Site
from support.tiny import identity, means

PICTURE = """name = "picture"
version = 1
[input]
channels = ["r", "g", "b"]
image = { width = 224, height = 224 }
[output]
kind = "regressor"
"""
NUMBERS = """name = "numbers"
version = 1
[input]
channels = [%s]
[output]
kind = "regressor"
"""


def model(site: Site, data: bytes) -> Path:
    path = site.path / "m.tflite"
    path.write_bytes(data)
    return path


def numbers(count: int, **output: str) -> str:
    keys = "".join(f'{key} = "{value}"\n' for key, value in output.items())
    return NUMBERS % ", ".join(f'"c{number}"' for number in range(count)) + keys


def test_eight_pictures_of_224_by_224_are_recorded_packed_and_installed(site: Site) -> None:
    site.configure('format = "png"\neach = "window"', name="picture")
    site.init()
    pixels = np.random.default_rng(3).integers(0, 256, (8, 224, 224, 3), np.uint8)

    package = site.pack_example(PICTURE, str(model(site, means((1, 224, 224, 3), [1, 2]))), {"x": pixels})

    site.install(package)
    assert package.stat().st_size > 8 * pixels[0].size, "they are in it, a byte each"


def test_windows_that_have_no_room_in_a_package_are_not_recorded(site: Site) -> None:
    """Each takes 1.2 MB as float32, and a package holds 4 MB of them."""
    site.configure('format = "csv"', name="long")
    site.init()
    manifest = 'name = "long"\nversion = 1\n[input]\nchannels = ["x", "y", "z"]\n[window]\nsize = 100000\n[output]\nkind = "regressor"\n'
    windows = np.random.default_rng(4).normal(size=(8, 100_000, 3)).astype(np.float32)

    package = site.pack_example(manifest, str(model(site, means((1, 100_000, 3), [1]))), {"x": windows})

    site.install(package)
    with np.load(site.path / "long-vectors.npz") as recorded:
        assert recorded["windows"].shape == (3, 100_000, 3)


def test_results_that_no_hub_opens_are_refused_by_try_and_pack(site: Site) -> None:
    site.configure(name="numbers")
    site.init()
    count = MOST_SCORES + 1
    weights = model(site, identity((1, count)))
    (site.path / "numbers.toml").write_text(numbers(count))
    np.savez(site.path / "x.npz", x=np.ones((2, count), np.float32))

    tried = site.edged("try", weights, "-m", "numbers.toml", "-i", "x.npz", check=False)
    np.savez(site.path / "st.npz", windows=np.ones((1, 1, count), np.float32), scores=np.ones((1, count), np.float32))
    (site.path / "numbers.toml").write_text(numbers(count) + '[self_test]\nfile = "st.npz"\n')
    packed = site.edged("pack", weights, "-m", "numbers.toml", "--sign", "acme.key", "--to", "board.enrol", check=False)

    for done in (tried, packed):
        assert done.returncode
        assert f"output.tell: {count} scores in each result, and hubs accept {MOST_SCORES}" in done.stderr
    site.install(site.pack_example(numbers(count, tell="score"), str(weights), {"x": np.ones((2, count), np.float32)}))


def test_a_package_that_boards_would_refuse_is_not_left_on_the_disk(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it came about: the file is read back with a board's own checks."""
    site.configure()
    site.init()
    honest = publisher.pack

    def damaged(*arguments: Any, **options: Any) -> Chunks:
        chunks = honest(*arguments, **options)
        chunks[-1] = bytes([chunks[-1][0] ^ 1]) + bytes(chunks[-1][1:])
        return chunks

    monkeypatch.setattr(publisher, "pack", damaged)
    np.savez(site.path / "x.npz", x=np.ones((2, 3), np.float32))
    (site.path / "m.toml").write_text(numbers(3))
    weights = model(site, identity((1, 3)))
    site.edged("try", weights, "-m", "m.toml", "-i", "x.npz", "--record-self-test", "st.npz")
    (site.path / "m.toml").write_text(numbers(3) + '[self_test]\nfile = "st.npz"\n')

    done = site.edged("pack", weights, "-m", "m.toml", "--sign", "acme.key", "--to", "board.enrol", check=False)

    assert done.returncode
    assert "is not the one that was signed" in done.stderr
    assert not list(site.path.glob("*.edged"))


def test_a_package_past_its_date_is_written_with_a_warning(site: Site) -> None:
    site.configure()
    site.init()
    np.savez(site.path / "x.npz", x=np.ones((2, 3), np.float32))
    (site.path / "m.toml").write_text(numbers(3))
    weights = model(site, identity((1, 3)))
    site.edged("try", weights, "-m", "m.toml", "-i", "x.npz", "--record-self-test", "st.npz")
    (site.path / "m.toml").write_text("expires = 2020-01-01\n" + numbers(3) + '[self_test]\nfile = "st.npz"\n')

    done = site.edged("pack", weights, "-m", "m.toml", "--sign", "acme.key", "--to", "board.enrol")

    assert "no board installs it: it expired on 2020-01-01" in done.stderr
