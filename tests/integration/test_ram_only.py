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
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.config.secret import read_secret
from edged.cose.keys import PrivateKey
from edged.identity import Record, Role
from edged.keystore import open_keystore
from edged.keystore.packages import PackageStore
from edged.package.author import SelfTestFile
from edged.package.manifest import Digest
from edged.package.verify import Package
from edged.runtime import choose
from support import ram
from support.broker import PrivateBroker
from support.packages import SHAPE, Workshop, read_manifest
from support.site import DaemonProcess, Site

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(ram.cannot_look()), reason=ram.cannot_look())]

CORES = Path("/var/lib/systemd/coredump")
FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/run"), Path.home() / ".cache", CORES)
"""Where a process might leave something, beside its own directories."""

EVERYTHING = "0x7f"
"""The core filter that leaves out nothing (core(5)): what then stays out of a dump was excluded map by map."""

WINDOWS = np.random.default_rng(7).normal(size=(20, *SHAPE)).astype(np.float32)
ANY_ANSWER = SelfTestFile(file="selftest.npz", tolerance=1e9)


@dataclass(frozen=True)
class Canary:
    """A model whose two largest layers have one weight everywhere, which nobody else has.

    :ivar twice: the needle: two such weights in a row.
    :ivar in_file: what stands before and at the first of them in the model's own bytes, but in no packed copy.
    """

    weights: bytes
    twice: bytes
    in_file: bytes

    @classmethod
    def hatch(cls, model: Path) -> Canary:
        # Between 0.008 and 0.03, as a weight may be.
        weight = struct.pack("<I", 0x3C000000 | int.from_bytes(os.urandom(3), "big"))
        weights = model.read_bytes()
        runtime = choose().interpret(model_path=str(model))
        runtime.allocate_tensors()
        layers = [detail["index"] for detail in runtime.get_tensor_details() if sorted(detail["shape"]) == [8, 16]]
        for layer in (runtime.get_tensor(index).tobytes() for index in layers):
            assert weights.count(layer) == 1
            weights = weights.replace(layer, weight * (len(layer) // 4))
        first = weights.index(weight * 2)
        return cls(weights, weight * 2, weights[first - 32 : first + 32])


@pytest.fixture
def canary(models: Path) -> Canary:
    return Canary.hatch(models / "gearbox" / "dnn.tflite")


@pytest.fixture(params=["tflite", "litert"])
def engine(request: pytest.FixtureRequest) -> str:
    pytest.importorskip({"tflite": "tflite_runtime", "litert": "ai_edge_litert"}[request.param])
    return str(request.param)


class Bench(Site):
    """A site whose packages are made in this process, so that no file ever held their weights in plain."""

    def prepare(self, engine: str = "auto", **options: Any) -> None:
        self.configure('format = "f32le"\neach = "window"', engine=engine, **options)
        self.init()
        self.workshop = Workshop.of_site(self.path / "workshop", self.path / "acme.key")
        self.workshop.write_self_test(WINDOWS[0], np.zeros(2, np.float32))
        self.plain = (self.models / "gearbox" / "dnn.tflite").read_bytes()
        np.savez(self.path / "windows.npz", windows=WINDOWS)

    def make(self, version: int, weights: bytes | None = None, self_test: SelfTestFile = ANY_ANSWER) -> bytes:
        """Return a package, without the canary unless ``weights`` has it."""
        board = Record.read(self.path / "board.enrol", Role.DEVICE).sealing_key
        return self.workshop.pack(weights or self.plain, [board], version=version, self_test=self_test)

    def put(self, version: int, package: bytes) -> None:
        """Put a package where the daemon finds it, without the checks of `edged install`."""
        PackageStore(self.state / "keystore" / "packages").add("gearbox", version, [package])

    def replace(self, daemon: DaemonProcess, version: int, package: bytes) -> None:
        """Install a version as users do, and wait until the daemon has let go of the one before."""
        path = self.path / "next.edged"
        path.write_bytes(package)
        self.install(path)
        wait_for_log(daemon, f"model gearbox {version} on")

    def answer(self) -> None:
        """Let the model answer some windows."""
        with self.listener(len(WINDOWS)) as listener:
            listener.wait_connected()
            windows = ("windows.npz", "--array", "windows", "--each", "window", "--format", "f32le")
            self.edged("send", *windows, "-t", self.topic, *self.connection())
            assert len(listener.results()) == len(WINDOWS)


def wait_for_log(daemon: DaemonProcess, line: str) -> None:
    """Wait for the end of the reload that logs ``line``."""
    while line not in daemon.log:
        daemon.wait_ready()


@pytest.fixture
def bench(tmp_path: Path, models: Path, tls_broker: PrivateBroker, request: pytest.FixtureRequest) -> Bench:
    return make_bench(tmp_path, models, tls_broker, request.node.nodeid)


def make_bench(path: Path, models: Path, broker: PrivateBroker, test: str) -> Bench:
    """A board on the shared broker, with a name and client certificate of its own, all its files below ``path``."""
    name = f"press-{abs(hash(test)) % 10**8:08d}"
    tls = broker.client(name)
    files = {"ca": tls.ca, "cert": tls.cert, "key": tls.key}
    for role, file in files.items():
        files[role] = Path(shutil.copy(file, path / f"{role}.pem"))
    path.chmod(0o700)
    return Bench(path, models, broker.url, files, name=name)


def model_maps(pid: int) -> list[ram.Map]:
    return [each for each in ram.maps(pid) if each.of_model]


# --- memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["start", "reload"])
def test_weights_are_in_memory_from_load_to_unload_and_only_where_it_is_locked(
    bench: Bench, canary: Canary, engine: str, at: str
) -> None:
    """In the model's two maps, which no dump takes in, and in the copy that XNNPACK packs on the heap."""
    bench.prepare(engine)
    bench.put(1, bench.make(1, canary.weights if at == "start" else None))
    with bench.daemon() as daemon:
        if at == "reload":
            assert ram.search_memory(daemon.pid, canary.twice) == []
            bench.replace(daemon, 2, bench.make(2, canary.weights))
        bench.answer()

        found = ram.search_memory(daemon.pid, canary.twice)
        ours, theirs = sorted((each for each in found if each.of_model), key=lambda each: each.permissions, reverse=True)
        assert (ours.permissions, theirs.permissions) == ("rw-s", "r--s")
        assert ours.undumped
        assert theirs.undumped
        assert theirs.locked, "and with it the same pages in our own map"
        (packed,) = (each for each in found if not each.of_model)
        assert packed.anonymous
        assert packed.locked

        bench.replace(daemon, 3, bench.make(3))
        assert ram.search_memory(daemon.pid, canary.twice) == []
        assert len(model_maps(daemon.pid)) == 2, "the new version's alone"


def wrong_self_test(bench: Bench, canary: Canary) -> bytes:
    return bench.make(2, canary.weights, SelfTestFile(file="selftest.npz", tolerance=1e-6))


def wrong_plaintext_hash(bench: Bench, canary: Canary) -> bytes:
    return bench.workshop.resign(bench.make(2, canary.weights), plaintext=Digest(len(canary.weights), bytes(32)))


def wrong_tag(bench: Bench, canary: Canary) -> bytes:
    package = bench.make(2, canary.weights)
    ciphertext = bytearray(Package.parse(memoryview(package)).ciphertext)
    ciphertext[-1] ^= 1
    return bench.workshop.resign(package, sealed=bytes(ciphertext))


def damaged_model(bench: Bench, canary: Canary) -> bytes:
    return bench.make(2, canary.weights[:-64])


def unfit_model(bench: Bench, canary: Canary) -> bytes:
    return bench.workshop.resign(bench.make(2, canary.weights), features=None)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (wrong_self_test, "self-test 1 of 1 is off"),
        (wrong_plaintext_hash, "the plaintext is not the one that was signed"),
        (wrong_tag, "the AEAD tag does not hold"),
        (damaged_model, "is truncated or damaged"),
        (unfit_model, "window.size x input.channels gives 32 values"),
    ],
)
def test_no_weights_stay_in_memory_when_a_load_fails(
    bench: Bench, canary: Canary, engine: str, make: Callable[[Bench, Canary], bytes], reason: str
) -> None:
    """Each was decrypted before it failed, and the version before goes on."""
    bench.prepare(engine)
    bench.put(1, bench.make(1))
    with bench.daemon() as daemon:
        bench.put(2, make(bench, canary))
        wait_for_log(daemon, reason)
        assert ram.search_memory(daemon.pid, canary.twice) == []
        assert len(model_maps(daemon.pid)) == 2
        bench.answer()


# --- files and core dumps --------------------------------------------------------------------


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
    unprotected = "import os, resource; _, most = resource.getrlimit(4); resource.setrlimit(4, (most, most)); os.abort()"
    subprocess.run(["python3", "-c", unprotected], cwd=bench.path, check=False)
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
    "freed memory overwritten: yes",
)


def test_the_log_says_at_start_that_all_protections_hold(bench: Bench) -> None:
    bench.prepare()
    bench.put(1, bench.make(1))
    with bench.daemon() as daemon:
        for line in (*HOLDS, "all memory locked against swapping: yes", "weights locked in RAM"):
            assert line in daemon.log
        assert resource.prlimit(daemon.pid, resource.RLIMIT_CORE) == (0, 0)
        assert Path(f"/proc/{daemon.pid}/coredump_filter").read_text().strip() == "00000000"
        assert Path(f"/proc/{daemon.pid}/mem").stat().st_uid == 0


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


@pytest.mark.parametrize(
    ("limit", "locked", "says"),
    [
        (1 << 20, {"r--s"}, "weights locked in RAM"),
        (16 << 10, {"rw-s"}, "weights locked in RAM"),  # room for one map, not for two at a time
        (8 << 10, set(), "weights NOT locked (they may be swapped out) in RAM"),
        (0, set(), "weights NOT locked (they may be swapped out) in RAM"),
    ],
)
def test_under_a_memory_lock_limit_the_log_says_no_and_the_model_is_locked_if_it_fits(
    nobodys_bench: Bench, limit: int, locked: set[str], says: str
) -> None:
    nobody = pwd.getpwnam("nobody")
    become = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    own_socket = ["sh", "-c", 'chown nobody notify-*; exec "$@"', "sh"]
    nobodys_bench.path.joinpath("daemon.log").unlink(missing_ok=True)
    with nobodys_bench.daemon(prefix=[*own_socket, "prlimit", f"--memlock={limit}", *become]) as daemon:
        assert f"Uid:\t{nobody.pw_uid}" in Path(f"/proc/{daemon.pid}/status").read_text()
        for line in (*HOLDS, says):
            assert line in daemon.log
        assert f"locked against swapping: NO, RLIMIT_MEMLOCK is {limit} bytes (systemd: LimitMEMLOCK=" in daemon.log
        maps = model_maps(daemon.pid)
        assert {each.permissions for each in maps} == {"r--s", "rw-s"}
        assert all(each.undumped for each in maps)
        assert {each.permissions for each in maps if each.locked} == locked


# --- keys ------------------------------------------------------------------------------------


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
