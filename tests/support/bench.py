"""A site whose model has short windows and is packed in the test's own process: quick to make, quick to ask."""

from __future__ import annotations

import copy
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from edged.board.state import State
from edged.formats.cose.keys import PrivateKey, PublicKey
from edged.formats.identity import Role
from edged.formats.package import Floor
from edged.keystore import open_keystore
from edged.keystore.records import read_record
from edged.model.dry_run import open_model
from edged.model.runtime import choose
from support.broker import PrivateBroker
from support.packages import SHAPE, Workshop
from support.site import Site

NOWHERE = "mqtt://127.0.0.1:9"
GOOD = np.random.default_rng(7).normal(size=SHAPE).astype(np.float32)
"""A window that the model answers."""


class Bench(Site):
    """A site without a broker: version 1 of the model is installed, and ``workshop`` makes what comes next."""

    workshop: Workshop
    weights: bytes

    @property
    def board(self) -> PublicKey:
        """The board's key to seal to."""
        return read_record(self.path / "board.enrol", Role.DEVICE).sealing_key

    @property
    def board_key(self) -> PrivateKey:
        """The private half."""
        agreement = open_keystore("file:", self.state / "keystore" / "keys", None).agreement
        assert isinstance(agreement, PrivateKey)
        return agreement

    def copy(self, path: Path) -> Bench:
        """Return the same board, with the same keys, in another place."""
        twin = copy.copy(self)
        shutil.copytree(self.path, path)
        twin.path, twin.state = path, path / "state"
        config = path / "edged.toml"
        config.write_text(config.read_text().replace(str(self.state), str(twin.state)))
        return twin

    def pack_fast(self, **change: Any) -> bytes:
        """Pack the model in this process; version 2 unless ``change`` says otherwise."""
        return self.workshop.pack(change.pop("weights", self.weights), [self.board], **{"version": 2, **change})

    def snapshot(self) -> dict[str, bytes]:
        """Return every file of the board, but for the state's own log, whose content :meth:`floor` tells."""
        files = (path for path in self.state.rglob("*") if path.is_file() and "state.db" not in path.name)
        return {str(path.relative_to(self.state)): path.read_bytes() for path in files}

    def floor(self) -> Floor | None:
        """Return the highest version that was ever accepted."""
        with closing(State(self.state)) as state:
            return state.floor("gearbox")

    def listed(self) -> list[tuple[str, int, str]]:
        """Return what `edged models` lists: name, version, state."""
        rows = json.loads(self.edged("models", "-c", "edged.toml", "--json").stdout)
        return [(row["name"], row["version"], row["state"]) for row in rows]

    def refuse(self, package: bytes, code: int, *said: str, name: str = "next.edged") -> str:
        """Install ``package``, which must be refused with ``code`` and ``said``, changing nothing; return the errors."""
        path = self.path / name
        path.write_bytes(package)
        before = self.snapshot(), self.floor()
        done = self.install(path, check=False)
        assert done.returncode == code, done.stderr
        error, *hint = [line for line in done.stderr.splitlines() if not line.startswith("INFO: ")]  # LiteRT's
        assert error.startswith(f"edged: error: {path}: "), error
        assert all(line.startswith("edged: hint: ") for line in hint), hint
        assert len(hint) == 1, f"no way out of: {error}"
        for words in said:
            assert words in done.stderr
        assert (self.snapshot(), self.floor()) == before
        return done.stderr


def make_bench(path: Path, models: Path, url: str = NOWHERE, **options: Any) -> Bench:
    """Make a board under ``path`` with version 1 installed; its clock is trusted."""
    path.mkdir(mode=0o700, exist_ok=True)
    bench = Bench(path, models, url, **options)
    config = bench.configure('format = "f32le"\neach = "window"')
    config.write_text(config.read_text().replace("[device]", '[device]\nclock = "trusted"'))
    bench.init()
    bench.weights = (models / "gearbox" / "dnn.tflite").read_bytes()
    bench.workshop = Workshop.of_site(path / "workshop", path / "acme.key")
    model = open_model(bench.workshop.author(), models / "gearbox" / "dnn.tflite", choose())
    bench.workshop.write_self_test(GOOD, model.scores(GOOD))
    model.close()
    first = path / "first.edged"
    first.write_bytes(bench.pack_fast(version=1))
    bench.install(first)
    return bench


def live_bench(path: Path, models: Path, broker: PrivateBroker, name: str) -> Bench:
    """As :func:`make_bench`, on a broker with TLS; ``name`` is the board's, which its test alone uses."""
    tls = broker.client(name)
    return make_bench(path, models, broker.url, tls={"ca": tls.ca, "cert": tls.cert, "key": tls.key}, name=name)
