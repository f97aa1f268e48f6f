"""Packages that must not be installed: each is refused by name, changes nothing, and the old version goes on."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from edged.base.errors import EdgedError
from edged.formats.cose import cbor
from edged.formats.cose.keys import PrivateKey
from edged.formats.package.manifest import Digest
from edged.formats.package.self_test import FLOAT32, SelfTest, SelfTestCase, TypedArray
from edged.formats.package.verify import Package
from edged.model.dry_run import open_model
from edged.model.live import load
from edged.model.runtime import choose
from support.bench import GOOD, Bench, live_bench, make_bench
from support.broker import PrivateBroker
from support.hub import Hub
from support.packages import SHAPE, Parts, Workshop, open_package, pin, read_manifest
from support.promises import NEVER_OLDER, SIGNED
from support.site import GEARBOX
from support.waiting import wait_until

pytestmark = SIGNED

DATAERR, NOINPUT, NOPERM = 65, 66, 77
YEAR = 365 * 86_400


@pytest.fixture(scope="module")
def bench(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Refusals change nothing, so that they share one board; it is as good as new in the end."""
    bench = make_bench(tmp_path_factory.mktemp("bench"), models)
    yield bench
    assert bench.listed() == [("gearbox", 1, "in use")]
    assert "version 1, self-test passed" in bench.edged("check", "edged.toml", "--offline").stdout


@pytest.fixture
def own_bench(models: Path, tmp_path: Path) -> Bench:
    """For tests that do change what is installed."""
    return make_bench(tmp_path / "bench", models)


# --- damaged ---------------------------------------------------------------------------------


def entry_ranges(package: bytes) -> Iterator[tuple[bytes, range]]:
    """Yield the key id and the place of each recipient's entry."""
    parts = Parts.of(package)
    recipients = Package.parse(memoryview(package)).recipients
    for recipient in recipients.recipients:
        encoded = cbor.encode(recipient.cose())
        start = len(parts.signed) + parts.recipients.index(encoded)
        yield recipient.kid, range(start, start + len(encoded))


def test_a_flipped_byte_is_refused_or_does_not_matter(bench: Bench) -> None:
    """Every bit of manifest, signature, recipients and head, and a sample of the ciphertext.

    What stands in another recipient's entry is not this board's business: if it is still an entry, the same model opens.
    """
    key, publishers = bench.board_key, pin(bench.workshop.publisher.public)
    package = bench.workshop.pack(bench.weights, [PrivateKey.generate().public, bench.board], version=2)
    weights = open_package(package, publishers, key)
    others = {at for kid, places in entry_ranges(package) if kid != bench.board.thumbprint for at in places}
    head = Parts.of(package).head
    positions = [*range(head), *range(head, len(package), 211), *range(len(package) - 17, len(package))]
    opened: set[int] = set()
    altered = bytearray(package)
    for at in positions:
        for bit in range(8):
            altered[at] ^= 1 << bit
            try:
                assert open_package(bytes(altered), publishers, key) == weights
            except EdgedError:
                pass
            else:
                opened.add(at)
            altered[at] ^= 1 << bit
    assert opened
    assert opened <= others


def test_a_model_with_a_flip_in_anothers_entry_loads_as_the_same_model(bench: Bench) -> None:
    """Key id and wrapped key of somebody else: any bytes will do."""
    package = bytearray(bench.workshop.pack(bench.weights, [PrivateKey.generate().public, bench.board], version=2))
    publishers, engine = pin(bench.workshop.publisher.public), choose()
    (places,) = (places for kid, places in entry_ranges(bytes(package)) if kid != bench.board.thumbprint)
    identity = Package.parse(memoryview(bytes(package))).verify(publishers).identity
    for at in (places[-1], places[-20], places[-40]):
        package[at] ^= 0x40
        model = load(Package.parse(memoryview(bytes(package))).verify(publishers), bench.board_key, engine, 1)
        assert model.identity == identity
        model.close()


def test_a_package_that_is_cut_short_anywhere_is_refused(bench: Bench) -> None:
    package, publishers = bench.pack_fast(), pin(bench.workshop.publisher.public)
    head = Parts.of(package).head
    for length in [*range(head + 1), *range(head, len(package), 499), len(package) - 1]:
        with pytest.raises(EdgedError):
            open_package(package[:length], publishers, bench.board_key)


@pytest.mark.parametrize("place", ["manifest", "signature", "recipients", "ciphertext", "tag"])
def test_a_flipped_bit_is_refused_by_the_command(bench: Bench, place: str) -> None:
    package = bytearray(bench.pack_fast())
    parts = Parts.of(bytes(package))
    at = {
        "manifest": package.index(b"healthy"),
        "signature": len(parts.signed) - 1,
        "recipients": len(parts.signed) + len(parts.recipients) - 1,
        "ciphertext": parts.head + 5000,
        "tag": len(package) - 1,
    }[place]
    package[at] ^= 0x01
    bench.refuse(bytes(package), NOPERM, "hint: ")


@pytest.mark.parametrize("length", [1, 100, -100, -1])
def test_a_package_that_is_cut_short_is_refused_by_the_command(bench: Bench, length: int) -> None:
    bench.refuse(bench.pack_fast()[:length], DATAERR, "fetch the package again")


def test_an_empty_package_is_refused(bench: Bench) -> None:
    path = bench.path / "empty.edged"
    path.write_bytes(b"")
    done = bench.install(path, check=False)
    assert done.returncode == NOINPUT
    assert done.stderr.startswith(f"edged: error: {path} is empty\nedged: hint: ")


def test_bytes_behind_a_package_are_refused(bench: Bench) -> None:
    bench.refuse(bench.pack_fast() + b"\0", DATAERR)


# --- not for here ----------------------------------------------------------------------------


def test_a_publisher_that_is_not_pinned_is_refused(bench: Bench) -> None:
    bench.edged("keygen", "publisher", "--id", "mallory", "--no-passphrase")
    mallory = Workshop.of_site(bench.path / "mallory", bench.path / "mallory.key")
    package = mallory.pack(bench.weights, [bench.board], version=2)
    bench.refuse(package, NOPERM, "which is not pinned here", "[publishers.NAME]")


def test_a_publisher_may_not_sign_models_that_it_was_not_named_for(bench: Bench) -> None:
    bench.refuse(bench.pack_fast(name="pump"), NOPERM, "may not sign model 'pump'", "`models` under [publishers.NAME]")


def test_a_package_for_another_board_is_refused(bench: Bench) -> None:
    package = bench.workshop.pack(bench.weights, [PrivateKey.generate().public], version=2)
    bench.refuse(package, NOPERM, "not sealed to", "`edged grant` adds one")


# --- dates and versions ----------------------------------------------------------------------


def test_an_expired_package_is_not_installed(bench: Bench) -> None:
    package = bench.workshop.resign(bench.pack_fast(), expires=int(time.time()) - 60)
    bench.refuse(package, NOPERM, "gearbox 2 has expired", "ask its publisher")


def test_a_package_from_the_future_is_not_installed(bench: Bench) -> None:
    package = bench.workshop.resign(bench.pack_fast(), created=int(time.time()) + YEAR)
    bench.refuse(package, NOPERM, "in the future", "clock")


def test_a_package_for_a_newer_release_is_not_installed(bench: Bench) -> None:
    bench.refuse(bench.workshop.resign(bench.pack_fast(), edged="999.0.0"), NOPERM, "needs edged 999.0.0", "upgrade")


def test_an_installed_package_that_expires_goes_on(own_bench: Bench) -> None:
    """Expiry blocks installation. What runs goes on, and may be put back as it was."""
    expires = int(time.time()) + 2
    short = own_bench.path / "short.edged"
    short.write_bytes(own_bench.workshop.resign(own_bench.pack_fast(), expires=expires))
    twin = own_bench.path / "other.edged"
    twin.write_bytes(own_bench.workshop.resign(own_bench.pack_fast(version=3), expires=expires))
    own_bench.install(short)
    wait_until(lambda: time.time() > expires + 1)
    assert own_bench.install(twin, check=False).returncode == NOPERM
    assert own_bench.listed() == [("gearbox", 1, "kept"), ("gearbox", 2, "in use")]
    assert "version 2, self-test passed" in own_bench.edged("check", "edged.toml", "--offline").stdout
    own_bench.install(short)


@NEVER_OLDER
def test_an_older_version_is_refused(own_bench: Bench) -> None:
    """Also after a restart of everything, and also if the newer package was deleted."""
    older = own_bench.path / "first.edged"
    newer = own_bench.path / "newer.edged"
    newer.write_bytes(own_bench.pack_fast())
    own_bench.install(newer)
    (own_bench.state / "keystore" / "packages" / "gearbox-2.edged").unlink()
    done = own_bench.install(older, check=False)
    assert done.returncode == NOPERM
    assert f"{older}: gearbox 1 is not above version 2" in done.stderr
    assert "edged: hint: to go back, publish the old weights under a higher version" in done.stderr
    assert own_bench.run("check", "edged.toml", "--offline", check=False).returncode == NOPERM
    own_bench.install(newer)
    assert own_bench.listed() == [("gearbox", 1, "kept"), ("gearbox", 2, "in use")]


def test_other_content_under_the_installed_version_is_refused(bench: Bench) -> None:
    bench.refuse(bench.pack_fast(version=1), NOPERM, "gearbox 1 is not above version 1")


# --- valid, in another role ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["acme.pub", "board.enrol", "acme.key", "sensor.key", "edged.toml", "manifest only", "model"]
)
def test_something_else_is_no_package(bench: Bench, name: str) -> None:
    special = {"manifest only": Parts.of(bench.pack_fast()).signed, "model": bench.weights}
    content = special.get(name) or (bench.path / name).read_bytes()
    bench.refuse(content, DATAERR, "fetch the package again")


def test_a_record_signed_by_the_publisher_is_no_manifest(bench: Bench) -> None:
    """The publisher signed both: what for is part of what was signed."""
    record = (bench.path / "acme.pub").read_bytes()
    bench.refuse(Parts.of(bench.pack_fast())._replace(signed=record).join(), DATAERR, "manifest")


@pytest.mark.parametrize(
    ("key", "record"), [("acme.pub", "fleet.pub"), ("acme.pub", "board.enrol"), ("home.pub", "acme.pub")]
)
def test_a_record_serves_in_its_own_role_only(own_bench: Bench, key: str, record: str) -> None:
    """An operator's key pinned as a publisher's would let the operator sign; a publisher is no hub."""
    config = own_bench.path / "edged.toml"
    config.write_text(config.read_text().replace(f'"{key}"', f'"{record}"'))
    done = own_bench.run("check", "edged.toml", "--offline", check=False)
    assert done.returncode == NOPERM
    assert f"{record} is the record of a" in done.stdout
    assert "hint: " in done.stdout


def test_an_operators_key_signs_no_package(bench: Bench) -> None:
    done = pack(bench, "--sign", "fleet.key")
    assert done.returncode == NOINPUT
    assert "fleet.key" in done.stderr
    assert "hint: " in done.stderr


def test_a_package_is_no_board_to_seal_to(bench: Bench) -> None:
    done = pack(bench, "--to", "first.edged")
    assert done.returncode == DATAERR
    assert "first.edged" in done.stderr


# --- signed by the right publisher, and wrong all the same ------------------------------------


def test_a_wrong_tag_is_refused_though_it_was_signed(bench: Bench) -> None:
    package = bench.pack_fast()
    altered = bytearray(Package.parse(memoryview(package)).parts[0])
    altered[-1] ^= 1
    bench.refuse(bench.workshop.resign(package, sealed=bytes(altered)), NOPERM, "the AEAD tag does not hold")


@pytest.mark.parametrize("by", [-1, 1])
def test_sizes_that_do_not_add_up_are_refused(bench: Bench, by: int) -> None:
    package = bench.pack_fast()
    manifest = read_manifest(package).sealed[0]
    parts = Parts.of(package)
    for name, code, said in (("ciphertext", DATAERR, "were signed"), ("plaintext", NOPERM, "the signed sizes of part")):
        was: Digest = getattr(manifest, name)
        wrong = Digest(was.size + by, was.sha256)
        bench.refuse(bench.workshop.resign(package, **{name: wrong}), code, said)
    head = cbor.bytes_head(manifest.ciphertext.size + by)
    wrong_head = parts._replace(ciphertext=head + bytes(Package.parse(memoryview(package)).parts[0]))
    bench.refuse(wrong_head.join(), DATAERR, "package")


def test_a_size_beyond_all_memory_is_refused_before_room_is_made(bench: Bench) -> None:
    manifest = read_manifest(bench.pack_fast()).sealed[0]
    huge = Digest(1 << 50, manifest.plaintext.sha256)
    huge_sealed = Digest((1 << 50) + 16, manifest.ciphertext.sha256)
    package = bench.workshop.resign(bench.pack_fast(), plaintext=huge, ciphertext=huge_sealed)
    bench.refuse(package, DATAERR, "were signed")


def test_another_plaintext_than_the_one_signed_is_refused(bench: Bench) -> None:
    package = bench.pack_fast()
    wrong = Digest(read_manifest(package).weights.size, bytes(32))
    resigned = bench.workshop.resign(package, plaintext=wrong)
    bench.refuse(resigned, NOPERM, "the plaintext of part 'model' is not the one that was signed")


# --- models that do not run ------------------------------------------------------------------

ODD = {
    "lfs_pointer_har_int8.tflite": "is a Git LFS pointer, not the model itself",
    "keras_lstm_mnist_ptq_edgetpu.tflite": "is compiled for the Edge TPU and runs nowhere else",
    "with_custom_op.lite": "needs the custom operator",
    "model_invoking_error.tflite": "the runtime refuses",
}


def pack(bench: Bench, *change: str, model: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `edged pack`; ``change`` takes the place of options."""
    manifest = GEARBOX.format(version=2).replace("size = 300", f"size = {SHAPE[0]}")
    (bench.path / "manifest.toml").write_text(manifest)
    shutil.copy(bench.workshop.path / "selftest.npz", bench.path / "selftest.npz")
    options = {"--sign": "acme.key", "--to": "board.enrol"} | dict(zip(change[::2], change[1::2], strict=True))
    arguments = [part for option in options.items() for part in option]
    (bench.path / "out.edged").unlink(missing_ok=True)
    model = model or bench.models / "gearbox" / "dnn.tflite"
    return bench.run("pack", model, "--manifest", "manifest.toml", *arguments, "-o", "out.edged", check=False)


@pytest.mark.real_models
@pytest.mark.parametrize("name", ODD)
def test_a_model_that_the_runtime_refuses_is_not_packed(bench: Bench, name: str) -> None:
    path = bench.models / "odd" / name
    done = pack(bench, model=path)
    assert done.returncode == DATAERR
    assert str(path) in done.stderr
    assert "edged: hint: " in done.stderr
    if name != "model_invoking_error.tflite":
        assert ODD[name] in done.stderr
    assert not (bench.path / "out.edged").exists()


@pytest.mark.real_models
@pytest.mark.parametrize("name", ODD)
def test_a_model_that_the_runtime_refuses_is_not_installed(bench: Bench, name: str) -> None:
    weights = (bench.models / "odd" / name).read_bytes()
    said = ODD[name] if name != "model_invoking_error.tflite" else "the model"
    bench.refuse(bench.pack_fast(weights=weights), DATAERR, said)


@pytest.mark.parametrize("size", [0, 1, 8, 3000])
def test_a_damaged_model_is_not_installed(bench: Bench, size: int) -> None:
    bench.refuse(bench.pack_fast(weights=bench.weights[:size] or b"\0"), DATAERR, "model")


@pytest.mark.real_models
def test_a_model_that_does_not_fit_its_manifest_is_not_installed(bench: Bench) -> None:
    keywords = (bench.models / "kws" / "kws_ref_model.tflite").read_bytes()
    bench.refuse(bench.pack_fast(weights=keywords), DATAERR, "features.use x input.channels gives 16 values")


# --- self-tests that disagree ----------------------------------------------------------------


def test_a_model_that_disagrees_with_its_self_test_is_not_packed(bench: Bench) -> None:
    assert pack(bench).returncode == 0
    good = bench.workshop.path / "selftest.npz"
    kept = good.read_bytes()
    try:
        bench.workshop.write_self_test(GOOD, np.array([0.1, 0.9], np.float32)[::-1])
        done = pack(bench)
    finally:
        good.write_bytes(kept)
    assert done.returncode == DATAERR
    assert "self-test 1 of 1: off by" in done.stderr
    assert "hint: " in done.stderr
    assert not (bench.path / "out.edged").exists()


def with_self_test(bench: Bench, scores: Sequence[float], tolerance: float) -> bytes:
    """Return a package whose publisher signed these scores."""
    arrays = TypedArray(FLOAT32, GOOD.tobytes()), TypedArray(FLOAT32, np.array(scores, "<f4").tobytes())
    test = SelfTest(tolerance, (SelfTestCase(*arrays),))
    return bench.workshop.reseal(bench.pack_fast(), bench.board_key, 1, test.encode())


@pytest.mark.parametrize(
    ("scores", "said"),
    [([0.5, 0.5], "off by"), ([np.nan, 0.0], "off by"), ([1.0], "2 scores where 1"), ([0.0, 0.0, 0.0], "2 scores where 3")],
    ids=["values", "nan", "too few", "too many"],
)  # fmt: skip
def test_a_model_that_disagrees_with_its_self_test_is_not_installed(
    bench: Bench, scores: list[float], said: str
) -> None:
    bench.refuse(with_self_test(bench, scores, 0.001), DATAERR, f"self-test 1 of 1: {said}", "ask the publisher")


def test_a_model_that_answers_another_label_is_not_installed_whatever_the_tolerance(bench: Bench) -> None:
    model = open_model(bench.workshop.author(), bench.models / "gearbox" / "dnn.tflite", choose())
    swapped = model.scores(GOOD)[::-1]
    model.close()
    bench.refuse(with_self_test(bench, swapped.tolist(), 1e9), DATAERR, "was signed")


def test_a_tolerance_that_is_no_number_is_no_tolerance(bench: Bench) -> None:
    bench.refuse(with_self_test(bench, [0.5, 0.5], float("nan")), DATAERR, "tolerance of the self-test")


# --- a daemon that runs ----------------------------------------------------------------------


def test_a_running_daemon_goes_on_with_the_old_version(models: Path, tmp_path: Path, tls_broker: PrivateBroker) -> None:
    """Refused by the command, or put where packages are by other hands: neither interrupts the old version."""
    bench = live_bench(tmp_path / "bench", models, tls_broker, "press-bad-packages")
    store = bench.state / "keystore" / "packages"
    reading = iter(range(1000))

    def version() -> int:
        other = GOOD + np.float32(next(reading) / 1000)  # an equal reading is answered too, but nobody could tell
        return hub.ask(other.tobytes()).result.version

    with bench.daemon() as daemon, Hub(bench) as hub:
        assert version() == 1
        cut = bench.pack_fast()[:-1]
        for package, code in ((cut, DATAERR), (bench.pack_fast(weights=b"TFL3" * 9), DATAERR)):
            bench.refuse(package, code)
            assert version() == 1
        shutil.copy(store / "gearbox-1.grant", store / "gearbox-2.grant")
        (store / "gearbox-2.edged").write_bytes(cut)
        daemon.wait_for("RELOADING=1")
        daemon.wait_ready()
        assert f"model gearbox: {store}/gearbox-2.edged: the package holds" in daemon.log
        assert version() == 1
        (store / "gearbox-2.edged").unlink()
        daemon.wait_ready()
        second = bench.path / "second.edged"
        second.write_bytes(bench.pack_fast())
        bench.install(second)
        daemon.wait_ready()
        assert version() == 2
        assert daemon.stop() == 0
    assert "Traceback" not in daemon.log
