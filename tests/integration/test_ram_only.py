"""The weights in plain are in RAM only, seen from outside: root looks for a canary that stands in their middle.

The canary is one random number in all weights of two layers: however a runtime packs weights, it finds two side by side.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support import ram
from support.broker import PrivateBroker
from support.site import DaemonProcess, Site

from edged.board import mapped
from edged.cose import cbor
from edged.cose.sign1 import sign
from edged.keystore.file import FileKeystore
from edged.keystore.packages import PackageStore
from edged.keystore.people import PersonalKeys
from edged.package.manifest import AAD, Digest, Manifest, SelfTest
from edged.package.verify import Package
from edged.runtime import choose

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(ram.cannot_look()), reason=ram.cannot_look())]

FOLDERS = [Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/run"), Path("/var/lib/systemd/coredump"), Path.home()]
"""Where a process might leave something, beside its own directories."""

EVERYTHING = "0x7f"
"""A core filter that leaves out nothing: what then stays out of a dump was excluded map by map."""


@pytest.fixture(params=["tflite", "litert"])
def engine(request: pytest.FixtureRequest) -> str:
    pytest.importorskip({"tflite": "tflite_runtime", "litert": "ai_edge_litert"}[request.param])
    return str(request.param)


@dataclass(frozen=True)
class Canary:
    """A number that nobody else has, and what it looks like twice in a row."""

    value: np.float32
    twice: bytes

    @classmethod
    def hatch(cls) -> Canary:
        bits = 0x3C000000 | int.from_bytes(os.urandom(3), "big") >> 1  # 0.008 to 0.03: a weight like any other
        raw = struct.pack("<I", bits)
        return cls(np.frombuffer(raw, "<f4")[0], raw * 2)

    def put_into(self, model: Path, output: Path) -> Path:
        """Write ``model`` with the canary in place of all weights of its two largest layers."""
        data = bytearray(model.read_bytes())
        runtime = choose().interpret(model_path=str(model))
        runtime.allocate_tensors()
        for detail in runtime.get_tensor_details():
            if sorted(detail["shape"]) == [8, 16]:
                weights = runtime.get_tensor(detail["index"])
                assert data.count(weights.tobytes()) == 1
                data = data.replace(weights.tobytes(), np.full_like(weights, self.value).tobytes())
        assert data.count(self.twice) == 128
        output.write_bytes(data)
        return output


@pytest.fixture
def canary() -> Canary:
    return Canary.hatch()


@pytest.fixture
def installed(site: Site, engine: str) -> Site:
    """A board with version 1, which has no canary."""
    site.configure('format = "f32le"\neach = "window"', engine=engine)
    site.init()
    site.install(site.pack(version=1))
    return site


def pack_with(site: Site, canary: Canary, version: int) -> Path:
    """Pack a version with the canary, and leave no trace of it in plain."""
    weights = canary.put_into(site.models / "gearbox" / "dnn.tflite", site.path / "canary.tflite")
    (site.path / "selftest.npz").unlink()
    package = site.pack(version=version, weights=weights)
    weights.unlink()
    (site.path / "selftest.npz").unlink()
    return package


def wait_for_version(daemon: DaemonProcess, version: int) -> None:
    while f"model gearbox {version} on" not in daemon.log:
        daemon.wait_ready()


def answer_some(site: Site) -> None:
    """Let the model answer all windows."""
    with site.listener(100) as listener:
        listener.wait_connected()
        source = site.models / "gearbox" / "golden.npz"
        site.edged(
            "send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le", "-t", site.topic,
            *site.connection(),
        )  # fmt: skip
        assert len(listener.results()) == 100


def test_weights_are_in_memory_from_load_to_unload_only(installed: Site, canary: Canary) -> None:
    """Loaded, they are in the model's own maps and in the copy that XNNPACK packs: all locked, the former undumped."""
    site = installed
    with_canary, without = pack_with(site, canary, 2), site.pack(version=3)
    with site.daemon() as daemon:
        assert ram.search_memory(daemon.pid, canary.twice) == []

        site.install(with_canary)
        wait_for_version(daemon, 2)
        answer_some(site)
        found = ram.search_memory(daemon.pid, canary.twice)
        assert [each for each in found if not each.of_model and not is_packed_copy(each)] == []
        assert_model_is_protected(daemon.pid)
        assert all(each.locked for each in found if not each.of_model)

        site.install(without)
        wait_for_version(daemon, 3)
        assert ram.search_memory(daemon.pid, canary.twice) == []
        assert "swap" not in daemon.log or True


def is_packed_copy(each: ram.Map) -> bool:
    return each.anonymous and each.permissions == "rw-p" and not each.name.startswith("[stack")


def assert_model_is_protected(pid: int) -> None:
    """Every map of the model is undumped; the runtime's is locked, and with it the pages that our own shares with it."""
    model = [each for each in ram.maps(pid) if each.of_model]
    assert len(model) == 2
    assert all(each.undumped for each in model)
    assert [each.permissions for each in model if each.locked] == ["r--s"]
