"""Grants of their own, and installation from a copy: what others do to the file meanwhile does not matter."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edged.base.errors import EdgedError, FormatError, MismatchError, MissingFileError
from edged.base.files import open_regular
from edged.board.installation import Board
from edged.board.state import State
from edged.config.load import load_board
from edged.formats.cose import keys
from edged.formats.cose.keys import PrivateKey
from edged.formats.package.verify import Package
from edged.keystore.packages import PackageStore
from edged.model.live import load
from edged.model.runtime import Engine
from support.bench import Bench, make_bench
from support.packages import Parts, pin, with_part
from support.site import GEARBOX


@pytest.fixture
def bench(models: Path, tmp_path: Path) -> Bench:
    """A board with version 1."""
    return make_bench(tmp_path / "bench", models)


def operators(bench: Bench) -> Path:
    """Return version 2, which is sealed to the operator alone."""
    manifest = bench.workshop.path / "manifest.toml"
    manifest.write_text(GEARBOX.format(version=2).replace("size = 300", "size = 8"))
    package = bench.path / "gearbox-2.edged"
    bench.edged(
        "pack", bench.models / "gearbox" / "dnn.tflite", "-m", manifest, "--sign", "acme.key", "--operator", "fleet.pub",
        "-o", package,
    )  # fmt: skip
    return package


# --- grants ----------------------------------------------------------------------------------


def test_a_package_for_the_operator_alone_is_installed_with_a_grant_of_its_own(bench: Bench) -> None:
    package = operators(bench)
    before = package.read_bytes()
    assert "not sealed to key" in bench.install(package, check=False).stderr
    bench.edged("grant", package, "--to", "board.enrol", "--operator-key", "fleet.key", "--alone")
    grant = bench.path / "gearbox-2.press-07.grant"
    assert grant.stat().st_size < 200
    bench.edged("install", package, "--grant", grant, "-c", "edged.toml")
    store = bench.state / "keystore" / "packages"
    assert package.read_bytes() == before == (store / "gearbox-2.edged").read_bytes()
    assert grant.read_bytes() == (store / "gearbox-2.grant").read_bytes()
    assert "version 2, self-test passed" in bench.edged("check", "edged.toml", "--offline").stdout


def test_a_grant_of_another_package_opens_nothing(bench: Bench) -> None:
    package = operators(bench)
    other = bench.path / "other.edged"
    other.write_bytes(bench.pack_fast())
    stolen = bench.path / "other.grant"
    stolen.write_bytes(Package.parse(memoryview(other.read_bytes())).recipients.encode())
    before = bench.snapshot()
    done = bench.edged("install", package, "--grant", stolen, "-c", "edged.toml", check=False)
    assert (done.returncode, "IV of the recipient list" in done.stderr) == (77, True), done.stderr
    assert bench.snapshot() == before


def test_pack_seals_to_somebody(bench: Bench) -> None:
    done = bench.edged(
        "pack", bench.models / "gearbox" / "dnn.tflite", "-m", "manifest.toml", "--sign", "acme.key", check=False
    )
    assert (done.returncode, "--operator" in done.stderr) == (64, True), done.stderr


def test_a_board_keeps_its_own_entry_beside_the_package_as_it_came(bench: Bench) -> None:
    others = [PrivateKey.generate().public for _ in range(20)]
    data = bench.workshop.pack(bench.weights, [*others, bench.board], version=2)
    (bench.path / "many.edged").write_bytes(data)
    bench.install(bench.path / "many.edged")
    installed = PackageStore(bench.state / "keystore" / "packages").find("gearbox", 2)
    assert installed is not None
    assert installed.path.read_bytes() == data
    granted = Package.parse(memoryview(data), installed.read_grant())
    assert granted.recipients.kids == [bench.board.thumbprint]


@pytest.mark.parametrize("change", [b"", b"\xff" * 180, None], ids=["empty", "junk", "absent"])
def test_a_package_without_its_grant_is_not_used_and_says_why(bench: Bench, change: bytes | None) -> None:
    grant = bench.state / "keystore" / "packages" / "gearbox-1.grant"
    if change is None:
        grant.unlink()
    else:
        grant.write_bytes(change)
    done = bench.edged("check", "edged.toml", "--offline", check=False)
    assert done.returncode != 0
    assert "hint: " in done.stdout
    bench.install(bench.path / "first.edged")
    assert bench.edged("check", "edged.toml", "--offline").returncode == 0


def test_a_pruned_package_takes_its_grant_with_it(bench: Bench) -> None:
    for version in (2, 3):
        path = bench.path / "next.edged"
        path.write_bytes(bench.pack_fast(version=version))
        bench.install(path)
    names = sorted(path.name for path in (bench.state / "keystore" / "packages").iterdir())
    assert names == ["gearbox-2.edged", "gearbox-2.grant", "gearbox-3.edged", "gearbox-3.grant"]


def test_one_of_4096_recipients_checks_one_point(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' cost 0.8 s."""
    others = [PrivateKey.generate().public for _ in range(200)]
    data = bench.workshop.pack(bench.weights, [*others, bench.board], version=2)
    key, publishers = bench.board_key, pin(bench.workshop.publisher.public)
    checked: list[int] = []
    check = ec.EllipticCurvePublicNumbers

    def count(x: int, y: int, curve: ec.EllipticCurve) -> ec.EllipticCurvePublicNumbers:
        checked.append(x)
        return check(x, y, curve)

    monkeypatch.setattr(keys.ec, "EllipticCurvePublicNumbers", count)
    Package.parse(memoryview(data)).verify(publishers).unwrap(key)
    assert len(checked) == 1


# --- what happens to the file meanwhile ------------------------------------------------------

REWRITES = """
import sys
from pathlib import Path
from edged.base.files import open_regular
from edged.board.installation import Board
from edged.board.state import State
from edged.config.load import load_board
from edged.model import live

path, good = Path(sys.argv[1]), live.load

def load(*arguments, **options):
    with path.open("r+b") as file:
        file.truncate(0) if sys.argv[2] == "truncate" else file.write(bytes(path.stat().st_size))
    return good(*arguments, **options)

live.load = load
board = Board(load_board(Path("edged.toml")))
print(board.install(open_regular(path), path, State(board.directory)).version)
"""


@pytest.mark.parametrize("how", ["truncate", "overwrite"])
def test_a_source_that_changes_while_it_is_installed_does_not_matter(bench: Bench, how: str) -> None:
    """It was verified, and what was copied after that was another file; truncated, it ended the command (SIGBUS)."""
    package = bench.pack_fast()
    path = bench.path / "next.edged"
    path.write_bytes(package)
    done = subprocess.run(
        [sys.executable, "-c", REWRITES, path, how],
        cwd=bench.path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert (bench.state / "keystore" / "packages" / "gearbox-2.edged").read_bytes() == package
    assert "version 2, self-test passed" in bench.edged("check", "edged.toml", "--offline").stdout


class Shrinking(io.FileIO):
    """A file that another process cuts short once its head was read."""

    def seek(self, offset: int, whence: int = 0) -> int:
        Path(str(self.name)).write_bytes(b"")
        return super().seek(offset, whence)


def test_a_source_that_is_cut_short_while_it_is_copied_is_refused(bench: Bench) -> None:
    path = bench.path / "next.edged"
    path.write_bytes(bench.pack_fast())
    before = bench.snapshot(), bench.floor()
    board = Board(load_board(bench.path / "edged.toml"))
    with closing(State(bench.state)) as state, Shrinking(path) as file, pytest.raises(FormatError, match="cut short"):
        board.install(file, path, state)  # type: ignore[arg-type]  # reads as a BinaryIO does
    assert (bench.snapshot(), bench.floor()) == before


def test_what_is_no_file_is_not_read(bench: Bench) -> None:
    for path in (Path("/dev/zero"), bench.path):
        with pytest.raises(MissingFileError):
            open_regular(path)


def test_a_sparse_file_of_a_terabyte_is_refused_before_it_is_copied(bench: Bench) -> None:
    path = bench.path / "huge.edged"
    path.write_bytes(bench.pack_fast())
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    done = bench.install(path, check=False)
    assert (done.returncode, "were signed" in done.stderr) == (65, True), done.stderr


def test_what_a_power_cut_left_of_a_copy_is_removed_with_the_next(bench: Bench) -> None:
    left = bench.state / "keystore" / "packages" / ".incoming.999999999"
    left.write_bytes(bytes(1000))
    bench.install(bench.path / "first.edged")
    assert not left.exists()


def test_at_a_load_the_runtime_never_sees_a_plaintext_that_was_not_signed(bench: Bench) -> None:
    """By whoever has the content key, such as another board that the package is sealed to."""
    good = bench.pack_fast()
    other = Parts.of(bench.workshop.reseal(good, bench.board_key, 0, bytes(len(bench.weights))))
    forged = Parts.of(good)._replace(ciphertext=other.ciphertext).join()
    package = Package.parse(memoryview(forged)).verify(pin(bench.workshop.publisher.public))
    engine = mock.create_autospec(Engine)
    with pytest.raises(MismatchError, match="the plaintext of part 'model' is not the one that was signed"):
        load(package, bench.board_key, engine)
    assert not engine.open.called


# --- inspect ---------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["model", "self_test"])
def test_inspect_finds_a_flipped_bit_of_a_ciphertext_though_the_signature_holds(bench: Bench, part: str) -> None:
    package = bytearray(bench.pack_fast())
    package[Parts.of(bytes(package)).head + 100 if part == "model" else -1] ^= 1
    path = bench.path / "flipped.edged"
    path.write_bytes(package)
    done = bench.edged("inspect", path, "--publisher", "acme.pub", check=False)
    assert done.returncode == 77
    assert f"the ciphertext of part '{part}' is not the one that was signed" in done.stderr
    assert "holds" not in done.stdout


def test_inspect_shows_parts_and_digests(bench: Bench) -> None:
    shown = bench.edged("inspect", "first.edged", "--publisher", "acme.pub").stdout
    assert re.search(r"^digests +hold$", shown, re.MULTILINE)
    assert "model (" in shown
    assert "self_test (" in shown


def test_a_date_beyond_the_calendar_is_shown_all_the_same(bench: Bench) -> None:
    path = bench.path / "late.edged"
    path.write_bytes(bench.workshop.resign(bench.pack_fast(), expires=(1 << 53) - 1))
    assert "9999-12-31" in bench.edged("inspect", path).stdout


def test_a_package_with_parts_that_are_for_later_is_refused_in_words(bench: Bench) -> None:
    path = bench.path / "later.edged"
    path.write_bytes(with_part(bench.workshop, bench.pack_fast(), "reference"))
    bench.refuse(path.read_bytes(), 77, "has a part 'reference', which edged", "upgrade edged on this board")


def test_nothing_raw_comes_out_of_a_package_of_random_parts(bench: Bench) -> None:
    good = bench.pack_fast()
    cut = Parts.of(good)
    for tail in (b"", b"\x40", b"\x40" * 9, b"\x5f\xff", b"\x80", b"\xd8\x55\x40", cut.self_test * 8):
        with pytest.raises(EdgedError):
            Package.parse(memoryview(cut.signed + cut.recipients + tail)).verify(
                pin(bench.workshop.publisher.public)
            ).check_ciphertexts()
