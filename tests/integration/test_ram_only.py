"""The weights in plain are in RAM only, seen from outside: root looks for a canary that stands in their middle.

The canary is one random number in place of all weights of two layers: in whatever order a runtime packs them, two of
them stand side by side.
"""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.config.secret import read_secret
from edged.formats.cose.keys import PrivateKey
from edged.formats.package.manifest import Digest
from edged.formats.package.verify import Package
from edged.keystore import open_keystore
from edged.model.author import SelfTestFile
from support import ram
from support.broker import PrivateBroker
from support.canary import Bench, Canary, make_bench, wait_for_log
from support.engines import ENGINES
from support.packages import read_manifest
from support.promises import RAM_ONLY

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(ram.cannot_look()), reason=ram.cannot_look())]

CORES = Path("/var/lib/systemd/coredump")
FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/run"), Path.home() / ".cache", CORES)
"""Where a process might leave something, beside its own directories."""

EVERYTHING = "0x7f"
"""The core filter that leaves out nothing (core(5)): what then stays out of a dump was excluded map by map."""


@pytest.fixture
def canary(models: Path) -> Canary:
    return Canary.hatch(models / "gearbox" / "dnn.tflite")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bench(tmp_path: Path, models: Path, tls_broker: PrivateBroker, request: pytest.FixtureRequest) -> Bench:
    return make_bench(tmp_path, models, tls_broker, request.node.nodeid)


def model_maps(pid: int) -> list[ram.Map]:
    return [each for each in ram.maps(pid) if each.of_model]


def model_files(pid: int) -> list[Path]:
    """Return the nameless files that hold models, one path to each; a runtime opens one a second time."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        if str(path.readlink()).startswith("/memfd:edged-model"):
            found[path.stat().st_ino] = path
    return [*found.values()]


# --- memory ----------------------------------------------------------------------------------


@RAM_ONLY
@pytest.mark.parametrize("at", ["start", "reload"])
def test_weights_are_in_memory_from_load_to_unload_and_only_where_it_is_locked(
    bench: Bench, canary: Canary, engine: str, at: str
) -> None:
    """In the model's two maps, which no dump takes in, and in the copy that XNNPACK packs on the heap.

    Who has the nameless file open all the while sees that it is wiped, and not only let go.
    """
    bench.prepare(engine)
    bench.put(1, bench.make(1, canary.weights if at == "start" else None))
    with bench.daemon() as daemon:
        if at == "reload":
            assert ram.search_memory(daemon.pid, canary.twice) == []
            bench.replace(daemon, 2, bench.make(2, canary.weights))
        bench.answer()

        found = ram.search_memory(daemon.pid, canary.twice)
        model = {each.permissions: each for each in found if each.of_model}
        assert set(model) == {"rw-s", "r--s"}, "our own map, and the runtime's"
        assert all(each.undumped for each in model.values())
        assert model["r--s"].locked, "and with it the same pages in our own map"
        (packed,) = (each for each in found if not each.of_model)
        assert packed.anonymous
        assert packed.locked

        files = model_files(daemon.pid)
        assert len(files) == 1, "the version before is let go, and not only mapped no more"
        with files[0].open("rb") as held:
            assert canary.twice in held.read()
            bench.replace(daemon, 3, bench.make(3))
            held.seek(0)
            assert canary.twice not in held.read()
        assert ram.search_memory(daemon.pid, canary.twice) == []
        assert len(model_maps(daemon.pid)) == 2, "the new version's alone"
        assert len(model_files(daemon.pid)) == 1


@RAM_ONLY
def test_the_version_that_stands_by_is_locked_and_wiped_when_the_trial_is_over(
    bench: Bench, canary: Canary, engine: str
) -> None:
    bench.prepare(engine, trial=1)
    bench.put(1, bench.make(1, canary.weights))
    with bench.daemon() as daemon:
        bench.answer()
        bench.replace(daemon, 2, bench.make(2))

        found = ram.search_memory(daemon.pid, canary.twice)
        assert found
        assert all(each.locked for each in found if each.permissions != "rw-s"), "its other map has the same pages"

        bench.answer()
        assert ram.search_memory(daemon.pid, canary.twice) == []


def wrong_self_test(bench: Bench, canary: Canary) -> bytes:
    return bench.make(2, canary.weights, SelfTestFile(file="selftest.npz", tolerance=1e-6))


def wrong_plaintext_hash(bench: Bench, canary: Canary) -> bytes:
    return bench.workshop.resign(bench.make(2, canary.weights), plaintext=Digest(len(canary.weights), bytes(32)))


def wrong_tag(bench: Bench, canary: Canary) -> bytes:
    package = bench.make(2, canary.weights)
    ciphertext = bytearray(Package.parse(memoryview(package)).parts[0])
    ciphertext[-1] ^= 1
    return bench.workshop.resign(package, sealed=bytes(ciphertext))


def damaged_model(bench: Bench, canary: Canary) -> bytes:
    return bench.make(2, canary.weights[:-64])


def unfit_model(bench: Bench, canary: Canary) -> bytes:
    return bench.workshop.resign(bench.make(2, canary.weights), features=None)


FAILING = {
    "self-test 1 of 1: off by": wrong_self_test,
    "the plaintext of part 'model' is not the one that was signed": wrong_plaintext_hash,
    "the AEAD tag does not hold": wrong_tag,
    "is truncated or damaged": damaged_model,
    "window.size x input.channels gives 32 values": unfit_model,
}


@RAM_ONLY
def test_no_weights_stay_in_memory_when_a_load_fails(bench: Bench, canary: Canary, engine: str) -> None:
    """Each was decrypted before it failed, and the version before goes on."""
    bench.prepare(engine)
    bench.put(1, bench.make(1))
    with bench.daemon() as daemon:
        for reason, make in FAILING.items():
            bench.put(2, make(bench, canary))
            wait_for_log(daemon, reason)
            assert ram.search_memory(daemon.pid, canary.twice) == [], reason
            assert len(model_maps(daemon.pid)) == 2, "those of version 1"
        bench.answer()


# --- files and core dumps --------------------------------------------------------------------


@RAM_ONLY
def test_weights_are_in_no_file_that_the_daemon_has_or_might_have_written(
    bench: Bench, canary: Canary, engine: str
) -> None:
    """But in the one without a name, in RAM, while they are loaded."""
    began = time.time()
    bench.prepare(engine)
    with_canary = bench.path / "first.edged"
    with_canary.write_bytes(bench.make(1, canary.weights))
    bench.install(with_canary)
    with bench.daemon() as daemon:
        bench.answer()
        assert ram.holding(ram.files_of(daemon.pid), canary.twice) == ["/memfd:edged-model (deleted)"]
        written = ram.files_since(began, [bench.path, *FOLDERS])
        assert str(bench.state / "state.db") in written
        assert ram.holding(written, canary.twice) == []
        assert "VmSwap:\t       0 kB" in Path(f"/proc/{daemon.pid}/status").read_text()
        assert daemon.stop() == 0
    assert ram.holding(ram.files_since(began, [bench.path]), canary.twice) == []


@pytest.mark.skipif(shutil.which("gcore") is None, reason="needs gcore, of Debian's gdb")
def test_a_core_dump_by_root_holds_no_weights(bench: Bench, canary: Canary, engine: str) -> None:
    """Of all memory, by the core filter that the daemon set itself; and not those of the model's maps by any filter.

    gcore attaches as a debugger: neither the core limit nor PR_SET_DUMPABLE stops root there.
    """
    bench.prepare(engine)
    bench.put(1, bench.make(1, canary.weights))
    with bench.daemon() as daemon:
        bench.answer()
        assert canary.twice not in dump(daemon.pid, bench.path)

        Path(f"/proc/{daemon.pid}/coredump_filter").write_text(EVERYTHING)
        everything = dump(daemon.pid, bench.path)
        assert canary.in_file not in everything
        assert canary.twice in everything, "XNNPACK's packed copy: without it the dump would show nothing"


def dump(pid: int, folder: Path) -> bytes:
    subprocess.run(["gcore", "-o", folder / "gcore", str(pid)], check=True, capture_output=True, timeout=60)
    path = folder / f"gcore.{pid}"
    content = path.read_bytes()
    path.unlink()
    return content


def test_a_daemon_that_aborts_leaves_no_core_dump(bench: Bench, canary: Canary) -> None:
    """Not even when root lifts filter and limit from outside: the latter needs CAP_SYS_RESOURCE, else it stays 0."""
    bench.prepare()
    bench.put(1, bench.make(1, canary.weights))
    began = time.time()
    unprotected = "import os, resource as r; r.setrlimit(4, (r.getrlimit(4)[1],) * 2); os.abort()"
    subprocess.run([sys.executable, "-c", unprotected], cwd=bench.path, check=False)
    dumps = cores_since(began, bench.path)
    if not dumps:
        pytest.skip("this machine writes no core dumps where they could be found")
    for path in dumps:
        path.unlink()

    with bench.daemon() as daemon:
        bench.answer()
        Path(f"/proc/{daemon.pid}/coredump_filter").write_text(EVERYTHING)
        try:
            resource.prlimit(daemon.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except PermissionError:
            assert resource.prlimit(daemon.pid, resource.RLIMIT_CORE) == (0, 0)
        daemon.process.send_signal(signal.SIGABRT)
        assert daemon.process.wait(20) == -signal.SIGABRT
    assert cores_since(began, bench.path) == []


def cores_since(then: float, folder: Path) -> list[Path]:
    return [path for path in ram.files_since(then, [folder, CORES]).values() if path.name.startswith("core")]


# --- what the log says -----------------------------------------------------------------------

HOLDS = (
    "no core dumps, memory closed to other processes of this user: yes",
    "core limit and core filter 0: yes",
    "freed memory overwritten, Python's objects too: yes",
)


@RAM_ONLY
def test_the_log_says_at_start_that_all_protections_hold(bench: Bench) -> None:
    bench.prepare()
    bench.put(1, bench.make(1))
    with bench.daemon() as daemon:
        for line in (*HOLDS, "all memory locked against swapping: yes", "weights locked in RAM"):
            assert line in daemon.log
        assert resource.prlimit(daemon.pid, resource.RLIMIT_CORE) == (0, 0)
        assert Path(f"/proc/{daemon.pid}/coredump_filter").read_text().strip() == "00000000"


@pytest.fixture(scope="module")
def nobodys_bench(models: Path, tls_broker: PrivateBroker) -> Iterator[Bench]:
    """A board whose files belong to a user without rights, outside pytest's folders, which are root's."""
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as folder:
        bench = make_bench(Path(folder), models, tls_broker, "nobody")
        bench.prepare()
        bench.put(1, bench.make(1))
        for path in (bench.path, *bench.path.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        yield bench


@RAM_ONLY
@pytest.mark.parametrize(
    ("copies", "locked", "says"),
    [
        (100.0, {"r--s"}, "weights locked in RAM"),
        (1.5, {"rw-s"}, "weights locked in RAM"),  # room for one map, not for two at a time
        (0.5, set(), "weights NOT locked (they may be swapped out) in RAM"),
    ],
)
def test_under_a_memory_lock_limit_the_log_says_no_and_the_model_is_locked_if_it_fits(
    nobodys_bench: Bench, copies: float, locked: set[str], says: str
) -> None:
    pages = -(-len(nobodys_bench.plain) // resource.getpagesize())
    limit = int(copies * pages) * resource.getpagesize()
    nobody = pwd.getpwnam("nobody")
    # nobody finds the environment, wherever it lies
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    become = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", *reading]
    own_socket = ["sh", "-c", 'chown nobody notify-*; exec "$@"', "sh"]
    nobodys_bench.path.joinpath("daemon.log").unlink(missing_ok=True)
    with nobodys_bench.daemon(prefix=[*own_socket, "prlimit", f"--memlock={limit}", *become]) as daemon:
        assert f"Uid:\t{nobody.pw_uid}" in Path(f"/proc/{daemon.pid}/status").read_text()
        assert Path(f"/proc/{daemon.pid}/mem").stat().st_uid == 0, "undumpable: root's, not the user's"
        for line in (*HOLDS, says):
            assert line in daemon.log
        assert f"locked against swapping: NO, RLIMIT_MEMLOCK is {limit} bytes (systemd: LimitMEMLOCK=" in daemon.log
        maps = model_maps(daemon.pid)
        assert {each.permissions for each in maps} == {"r--s", "rw-s"}
        assert all(each.undumped for each in maps)
        assert {each.permissions for each in maps if each.locked} == locked


# --- keys ------------------------------------------------------------------------------------


@RAM_ONLY
def test_private_keys_are_in_locked_memory_and_under_a_credential_in_no_file(bench: Bench) -> None:
    """The board's two keys stay in memory: it signs with one and loads models with the other."""
    began = time.time()
    wrap = bench.path / "wrap.secret"
    wrap.write_bytes(os.urandom(32).hex().encode())
    wrap.chmod(0o600)
    bench.prepare(extra=f'[keystore]\nwrap = "{wrap}"')
    package = bench.make(1)
    bench.put(1, package)
    keystore = open_keystore("file:", bench.state / "keystore" / "keys", read_secret(str(wrap)))
    assert isinstance(keystore.agreement, PrivateKey)
    assert isinstance(keystore.signer, PrivateKey)
    content = Package.parse(memoryview(package)).recipients.unwrap(keystore.agreement, read_manifest(package).commit)
    keys = {"sign": keystore.signer.scalar(), "ecdh": keystore.agreement.scalar(), "content": content.secret}
    with bench.daemon() as daemon:
        bench.answer()
        found = {name: ram.search_memory(daemon.pid, key, key[::-1]) for name, key in keys.items()}
        assert found["sign"]
        assert found["ecdh"]
        assert all(each.anonymous and each.locked for maps in found.values() for each in maps)
        files = ram.files_of(daemon.pid) | ram.files_since(began, [bench.path, Path("/dev/shm")])
        assert ram.holding(files, *(form for key in keys.values() for form in (key, key[::-1]))) == []
