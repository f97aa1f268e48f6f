"""What this process holds of a model stays in RAM, and not longer than it should. Linux's own books are the witness."""

from __future__ import annotations

import errno
import mmap
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from edged.base.errors import ModelError
from edged.base.memory import SecretBuffer, wipe
from edged.model.runtime import Engine, choose
from support.engines import ENGINES, Name

PAGE = mmap.PAGESIZE
CANARY = bytes.fromhex("42feca3d")
"""A float32 weight, about 0.1: in a run of it no packing of weights can be told from another."""


def vm_flags() -> list[set[str]]:
    """Return the flags of each map of a secret buffer (proc_pid_smaps(5)): lo = locked, dd = not dumped."""
    smaps = Path("/proc/self/smaps").read_text()
    return [set(flags.split()) for flags in re.findall(r"/memfd:edged-model.*?VmFlags: ([^\n]*)", smaps, re.DOTALL)]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def buffer() -> Iterator[SecretBuffer]:
    with SecretBuffer(3 * PAGE + 5) as secret:
        secret.lock()
        yield secret


def test_buffer_can_be_opened_as_a_file(buffer: SecretBuffer) -> None:
    buffer.view[:6] = b"secret"

    assert Path(buffer.path).read_bytes() == b"secret" + bytes(3 * PAGE - 1)


def test_buffer_is_locked_and_left_out_of_core_dumps(buffer: SecretBuffer) -> None:
    (flags,) = vm_flags()

    assert "dd" in flags
    assert ("lo" in flags) == buffer.locked


def test_protections_pass_to_the_runtimes_map_and_the_pages_are_counted_once(buffer: SecretBuffer) -> None:
    buffer.view[:] = b"x" * len(buffer.view)
    with Path(buffer.path).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as runtime:
        buffer.seal_runtime_maps()

        assert sorted(("lo" in flags, "dd" in flags) for flags in vm_flags()) == [(False, True), (buffer.locked, True)]
        assert bytes(runtime) == bytes(buffer.view) == b"x" * len(buffer.view)


@pytest.mark.parametrize("error", [errno.ENOTTY, errno.EPERM])
def test_protections_pass_over_where_the_kernel_answers_no_query_of_maps(
    buffer: SecretBuffer, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Before Linux 6.11, or where a filter of system calls forbids it."""

    def refuse(*_arguments: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("fcntl.ioctl", refuse)
    with Path(buffer.path).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        buffer.seal_runtime_maps()

        assert sorted(("lo" in flags, "dd" in flags) for flags in vm_flags()) == [(False, True), (buffer.locked, True)]


@pytest.mark.parametrize("fails", [False, True])
def test_buffer_is_wiped_on_leaving_even_by_an_exception(*, fails: bool) -> None:
    with ExitStack() as stack:
        stack.enter_context(suppress(ZeroDivisionError))
        buffer = stack.enter_context(SecretBuffer(PAGE))
        buffer.view[:6] = b"secret"
        kept = os.open(buffer.path, os.O_RDONLY)
        assert 1 // (not fails)

    assert os.pread(kept, PAGE, 0) == bytes(PAGE)
    assert not vm_flags()
    os.close(kept)


def test_buffer_may_be_closed_twice(buffer: SecretBuffer) -> None:
    buffer.close()
    buffer.close()


@pytest.mark.parametrize("size", [0, 1 << 62])
def test_impossible_size_is_refused(size: int) -> None:
    before = open_files()

    with pytest.raises(ModelError, match=f"no room in RAM for a model of {size} bytes"):
        SecretBuffer(size)

    assert open_files() == before


def test_wipe_leaves_zeros() -> None:
    secret = bytearray(b"secret")

    wipe(memoryview(secret)[2:])
    wipe(bytearray())

    assert secret == b"se\0\0\0\0"


# --- what cannot be undone happens in a process of its own ---------------------------------------

HARDEN = """
import ctypes, os, resource, sys
from edged.base.errors import EdgedError
from edged.base.memory import SecretBuffer, harden

soft = int(sys.argv[1])
if soft >= 0:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, soft))
    os.setgroups([])
    os.setuid(65534)
print(*harden().describe(), sep="\\n")
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0, "dumpable"
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
more = bytearray(64 << 20)  # whatever was locked, later allocations succeed
with SecretBuffer(100_000) as buffer:
    buffer.lock()
    buffer.view[:6] = b"secret"
    with open(buffer.path, "rb") as file:
        assert file.read(6) == b"secret"
    print("locked", buffer.locked)
"""


def harden_under(limit: int) -> str:
    command = [sys.executable, "-c", HARDEN, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.root
def test_root_gets_every_protection() -> None:
    assert "NO" not in harden_under(-1)


@pytest.mark.root
def test_finite_limit_locks_the_model_alone_and_says_so() -> None:
    """mlockall under a finite limit would make later allocations fail. The file in RAM opens for other users too."""
    said = harden_under(1 << 20)

    assert "all memory locked against swapping: NO, RLIMIT_MEMLOCK is 1048576 bytes" in said
    assert "locked True" in said


@pytest.mark.root
def test_no_room_for_a_lock_is_told() -> None:
    assert "locked False" in harden_under(PAGE)


# --- a canary, searched from outside --------------------------------------------------------------

LIFE = """
import sys
from pathlib import Path
import numpy as np
from edged.base.memory import SecretBuffer, harden
from edged.model.runtime import Interpreter, choose

harden()
engine = choose(sys.argv[1])
def stage(name):
    print(name, flush=True)
    sys.stdin.readline()
stage("before")
path = Path(sys.argv[2])
buffer = SecretBuffer(path.stat().st_size)
buffer.lock()
with path.open("rb", buffering=0) as file:
    file.readinto(buffer.view)
interpreter = Interpreter(engine, buffer.path, on_mapped=buffer.seal_runtime_maps)
interpreter.run(np.ones(interpreter.inputs[0].shape, np.float32))
stage("loaded")
interpreter.close()
buffer.close()
stage("closed")
"""


@pytest.mark.root
@pytest.mark.parametrize("name", ENGINES)
def test_canary_is_in_memory_only_while_the_model_is_loaded(name: Name, models: Path, tmp_path: Path) -> None:
    """Then in the locked map and in the runtime's packed copy, which lies in anonymous memory."""
    path = tmp_path / "canary.tflite"
    path.write_bytes(with_canary(choose(name), models / "ic_resnet" / "pretrainedResnet.tflite"))
    command = [sys.executable, "-c", LIFE, name, str(path)]
    found = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stdout
        for stage in child.stdout:
            found[stage.strip()] = maps_that_hold(CANARY * 32, child.pid)
            child.stdin.write("\n")
            child.stdin.flush()

    assert found.pop("loaded") >= {"/memfd:edged-model"}
    assert found == {"before": set(), "closed": set()}


def with_canary(engine: Engine, path: Path) -> bytes:
    """Return a model, its largest constants overwritten."""
    interpreter = engine.module.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    content = bytearray(path.read_bytes())
    for detail in interpreter.get_tensor_details():
        if detail["dtype"] is np.float32 and np.prod(detail["shape"]) >= 4096:
            try:
                weights = interpreter.get_tensor(detail["index"]).tobytes()
            except ValueError:
                continue  # no constant
            start = content.find(weights)
            if start >= 0:
                content[start : start + len(weights)] = CANARY * (len(weights) // 4)
    assert content.count(CANARY) > 10_000
    return bytes(content)


def maps_that_hold(needle: bytes, pid: int) -> set[str]:
    holding = set()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            addresses, mode, *_, name = [*line.split(maxsplit=5), ""][:6]
            start, end = (int(address, 16) for address in addresses.split("-"))
            if mode.startswith("r") and not name.startswith("[v"):
                memory.seek(start)
                if needle in memory.read(end - start):
                    holding.add(name.removesuffix(" (deleted)") or "anonymous")
    return holding
