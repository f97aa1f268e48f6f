"""Attacks on the update of models, each by its name (as TUF names them), with the command lines that an attacker meets."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from edged.board.installation import Board, mapped
from edged.board.state import State
from edged.config.load import load_board
from edged.formats.cose import cbor
from edged.formats.cose.sign1 import Sign1
from edged.formats.package.verify import Package
from support.promises import NEVER_OLDER, SIGNED
from support.site import GEARBOX, Site

pytestmark = SIGNED

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256 (SP 800-186, section 3.2.1.3)


@pytest.fixture
def board(site: Site) -> Site:
    """A board with version 2 installed."""
    site.configure('format = "f32le"\neach = "window"')
    site.init()
    site.install(site.pack(version=2))
    return site


def refused(site: Site, package: Path, kind: str, said: str) -> None:
    """Expect that a package is refused for this reason, that nothing has changed, and that the record says so."""
    before = site.edged("models", "--json", "-c", "edged.toml").stdout
    done = site.install(package, check=False)
    assert done.returncode != 0
    assert said in done.stderr, done.stderr
    assert site.edged("models", "--json", "-c", "edged.toml").stdout == before
    assert f'"why": "{kind}"' in site.edged("audit", "--json", "-n", 1, "-c", "edged.toml").stdout


def rewritten(site: Site, package: Path, *, head: bytes | None = None, tail: bytes | None = None) -> Path:
    """Return a package with another manifest and signature, or other recipients and ciphertext."""
    data = package.read_bytes()
    limits = cbor.Limits(size=len(data), depth=16, items=100_000)
    first = cbor.scan(data, 0, limits)
    path = site.path / "attack.edged"
    path.write_bytes((head or data[:first]) + (tail or data[first:]))
    return path


def parts(package: Path) -> tuple[bytes, bytes]:
    data = package.read_bytes()
    first = cbor.scan(data, 0, cbor.Limits(size=len(data), depth=16, items=100_000))
    return data[:first], data[first:]


def test_arbitrary_package_by_a_key_that_nobody_pinned(board: Site) -> None:
    board.edged("keygen", "publisher", "--id", "mallory", "--no-passphrase")
    board.edged(
        "pack", board.models / "gearbox" / "dnn.tflite", "-m", "manifest.toml", "--sign", "mallory.key", "--to",
        "board.enrol", "-o", "evil.edged",
    )  # fmt: skip

    refused(board, board.path / "evil.edged", "UnknownSignerError", "pin")


@NEVER_OLDER
def test_rollback_to_a_version_that_was_superseded(board: Site) -> None:
    refused(board, board.pack(version=1), "RollbackError", "not above version 2")


@NEVER_OLDER
def test_fast_forward_leaves_versions_to_come(board: Site) -> None:
    refused(board, board.pack(version=2**32 - 1), "FastForwardError", "lies more than 100000 above version 2")


def test_freeze_with_a_package_that_has_expired(board: Site) -> None:
    manifest = GEARBOX.replace("version =", "expires = 2020-01-01\nversion =")

    refused(board, board.pack(version=3, manifest=manifest), "ExpiredError", "has expired")


def test_mix_and_match_of_one_manifest_with_anothers_weights(board: Site) -> None:
    head, _ = parts(board.pack(version=3))
    _, tail = parts(board.pack(version=4))

    refused(board, rewritten(board, board.path / "gearbox-3.edged", head=head, tail=tail), "MismatchError", "not")


def test_mix_and_match_of_another_packages_recipients(board: Site) -> None:
    """The ciphertext is the signed one; the keys to it are of another package."""
    data = {version: memoryview(board.pack(version=version).read_bytes()) for version in (3, 4)}
    packages = {version: Package.parse(view) for version, view in data.items()}
    signed, own = parts(board.path / "gearbox-3.edged")
    ciphertexts = b"".join(cbor.bytes_head(len(part)) + bytes(part) for part in packages[3].parts)
    assert own.endswith(ciphertexts)

    tail = packages[4].recipients.encode() + ciphertexts
    refused(board, rewritten(board, board.path / "gearbox-3.edged", head=signed, tail=tail), "MismatchError", "not")


def test_wrong_board_is_no_recipient(board: Site, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / "edged.toml").write_text(
        (board.path / "edged.toml").read_text().replace(str(board.state), str(other / "s"))
    )
    for name in ("acme.pub", "home.pub"):
        (other / name).write_bytes((board.path / name).read_bytes())
    board.edged("init", "-c", other / "edged.toml", "-o", other / "other.enrol")

    done = board.run("install", board.path / "gearbox-2.edged", "-c", other / "edged.toml", check=False)

    assert (done.returncode, "not sealed to key" in done.stderr) == (77, True), done.stderr


def test_publisher_that_is_no_longer_listed_takes_its_models_with_it(board: Site) -> None:
    config = board.path / "edged.toml"
    board.edged("keygen", "publisher", "--id", "other", "--no-passphrase")
    config.write_text(config.read_text().replace('"acme.pub"', '"other.pub"'))

    done = board.run("run", "-c", "edged.toml", check=False)

    assert done.returncode == 77
    assert "gearbox-2.edged" in done.stderr


@pytest.mark.parametrize("change", [b"\0", b"\0" * 10_000_000, -1, -1000])
def test_endless_data_behind_or_in_front_of_what_is_declared(board: Site, change: bytes | int) -> None:
    data = board.pack(version=3).read_bytes()
    path = board.path / "attack.edged"
    path.write_bytes(data[:change] if isinstance(change, int) else data + change)

    refused(board, path, "FormatError", "were signed")


def test_endless_data_in_the_head_is_not_read(board: Site) -> None:
    """A byte string that claims to be of a terabyte."""
    path = board.path / "attack.edged"
    path.write_bytes(b"\xd2\x84\x43\xa1\x01\x26\xa0\x5b\x00\x00\x01\x00\x00\x00\x00\x00" + bytes(1000))

    refused(board, path, "FormatError", "no package, or cut short")


def test_downgrade_of_the_algorithm_that_was_signed(board: Site) -> None:
    """The recipient list says ChaCha20-Poly1305, the signed manifest AES-GCM."""
    signed, tail = parts(board.pack(version=3))
    named, other = bytes.fromhex("43a10103"), bytes.fromhex("44a1011818")
    assert tail.count(named) == 1

    refused(
        board,
        rewritten(board, board.path / "gearbox-3.edged", head=signed, tail=tail.replace(named, other)),
        "MismatchError",
        "algorithm",
    )


@NEVER_OLDER
def test_state_file_deleted_is_said_and_does_not_hide_the_installed_version(board: Site) -> None:
    """Without it the board has no floor: docs/threats.md says what that costs."""
    for file in board.state.glob("state.db*"):
        file.unlink()

    with board.daemon() as daemon:
        assert daemon.stop() == 0

    state = State(board.state)
    floor = state.floor("gearbox")
    state.close()
    assert floor is not None
    assert floor.version == 2
    refused(board, board.pack(version=1), "RollbackError", "not above version 2")


def test_two_daemons_on_one_state(board: Site) -> None:
    with board.daemon():
        done = board.run("run", "-c", "edged.toml", check=False)
        assert (done.returncode, "already runs" in done.stderr) == (75, True), done.stderr


def test_resigned_twin_with_a_malleable_signature_is_the_same_package(board: Site) -> None:
    """(r, -s) verifies as (r, s) does: what a package is called must not depend on it."""
    package = board.path / "gearbox-2.edged"
    head, _ = parts(package)
    signed = Sign1.parse(head, cbor.Limits(size=1 << 20, depth=16, items=100_000))
    r, s = int.from_bytes(signed.signature[:32], "big"), int.from_bytes(signed.signature[32:], "big")
    twin = Sign1(signed.kid, signed.unverified, r.to_bytes(32, "big") + (ORDER - s).to_bytes(32, "big")).encode()
    assert decode_dss_signature(encode_dss_signature(r, ORDER - s)) != (r, s)
    assert twin != head
    path = rewritten(board, package, head=twin)

    identities = {
        Board(load_board(board.path / "edged.toml")).verify(mapped(one), one).identity for one in (package, path)
    }

    assert len(identities) == 1
    board.install(path)  # it is the version that is installed already
    assert board.edged("models", "--json", "-c", "edged.toml").stdout.count('"version": 2') == 1


@pytest.mark.parametrize("years", [-56, 10])
def test_clock_far_off_neither_stops_the_board_nor_moves_its_time(board: Site, years: int) -> None:
    """1970, and ten years ahead, by an unsynchronised clock: nothing that is signed is believed to be older or newer."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("needs faketime, of Debian's package of that name")
    fake = {"LD_PRELOAD": str(library), "FAKETIME": f"{years:+d}y", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with board.daemon(environment=fake) as daemon:
        assert daemon.stop() == 0
    assert daemon.log.startswith(str(time.gmtime().tm_year + years)), "or nothing was shown"

    state = State(board.state)
    created = state.newest_created()
    state.close()
    assert abs(created - time.time()) < 86_400
    board.install(board.pack(version=3))
