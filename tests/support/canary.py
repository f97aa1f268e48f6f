"""Models with a canary in their weights, and a board that runs them: what is searched for must be nobody else's."""

from __future__ import annotations

import io
import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edged.formats.identity import Role
from edged.formats.package.verify import Package
from edged.keystore.packages import PackageStore
from edged.keystore.records import read_record
from edged.model.author import SelfTestFile
from edged.model.runtime import choose
from support.broker import PrivateBroker
from support.packages import SHAPE, Workshop
from support.process import DaemonProcess
from support.site import Site, board_name

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
        """Put a new one into ``model``, the gearbox's."""
        # Between 0.008 and 0.03, as a weight may be.
        weight = struct.pack("<I", 0x3C000000 | int.from_bytes(os.urandom(3), "big"))
        weights = model.read_bytes()
        runtime = choose().module.Interpreter(model_path=str(model))
        runtime.allocate_tensors()
        layers = [detail["index"] for detail in runtime.get_tensor_details() if sorted(detail["shape"]) == [8, 16]]
        for layer in (runtime.get_tensor(index).tobytes() for index in layers):
            assert weights.count(layer) == 1
            weights = weights.replace(layer, weight * (len(layer) // 4))
        first = weights.index(weight * 2)
        return cls(weights, weight * 2, weights[first - 32 : first + 32])


class Bench(Site):
    """A site whose packages are made in this process, so that no file ever held their weights in plain."""

    def prepare(self, engine: str = "auto", *, trial: int = 0, **options: Any) -> None:
        """Make the board's keys and configuration, and what :meth:`make` packs.

        :param trial: windows for which the version before stands by.
        """
        table = f'format = "f32le"\neach = "window"\ntrial = {{ windows = {trial} }}'
        self.configure(table, engine=engine, **options)
        self.init()
        self.workshop = Workshop.of_site(self.path / "workshop", self.path / "acme.key")
        self.workshop.write_self_test(WINDOWS[0], np.zeros(2, np.float32))
        self.plain = (self.models / "gearbox" / "dnn.tflite").read_bytes()
        np.savez(self.path / "windows.npz", windows=WINDOWS)

    def make(self, version: int, weights: bytes | None = None, self_test: SelfTestFile = ANY_ANSWER) -> bytes:
        """Return a package, without the canary unless ``weights`` has it."""
        board = read_record(self.path / "board.enrol", Role.DEVICE).sealing_key
        return self.workshop.pack(weights or self.plain, [board], version=version, self_test=self_test)

    def put(self, version: int, package: bytes) -> None:
        """Put a package where the daemon finds it, without the checks of `edged install`."""
        store = PackageStore(self.state / "keystore" / "packages")
        board = read_record(self.path / "board.enrol", Role.DEVICE).sealing_key
        own = Package.parse(memoryview(package)).recipients.only(board.thumbprint)
        with store.copied(io.BytesIO(package), len(package)) as copy:
            store.add("gearbox", version, copy, own.encode())

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


def make_bench(path: Path, models: Path, broker: PrivateBroker, test: str) -> Bench:
    """A board on the shared broker, with a name and client certificate of its own, all its files below ``path``."""
    name = board_name(test)
    tls = broker.client(name)
    files = {"ca": tls.ca, "cert": tls.cert, "key": tls.key}
    for role, file in files.items():
        files[role] = Path(shutil.copy(file, path / f"{role}.pem"))
    path.chmod(0o700)
    return Bench(path, models, broker.url, files, name=name)


def wait_for_log(daemon: DaemonProcess, line: str) -> None:
    """Wait for the end of a reload that logged ``line``."""
    while line not in daemon.log:
        daemon.wait_ready()
