"""How long it takes until a verified model answers, against its floor: decryption alone and the interpreter alone."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from board import Board
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from report import Row, ratio
from subjects import CHANNELS, LABELS, ROWS, vibration

from edged.board.installation import Board as EdgedBoard
from edged.board.installation import mapped
from edged.board.state import State
from edged.config.load import load_board
from edged.model.live import load
from edged.model.runtime import Engine, choose

_LAYERS = {
    "1 MB": (ROWS * CHANNELS, 256, 192, LABELS),
    "10 MB": (ROWS * CHANNELS, 1536, 832, LABELS),
    "100 MB": (ROWS * CHANNELS, 4096, 4096, 1280, LABELS),
}
_ROUNDS = {"1 MB": 60, "10 MB": 40, "100 MB": 15}
_QUICK = 3
_BAR = 1.3
_NO_PORT = 1


class _Load:
    """One model: loaded as edged does, and its floor, in turns in this process.

    :ivar edged: seconds of unwrap + decrypt + load + self-test.
    :ivar floor: of the AEAD's ``decrypt`` + a bare interpreter that answers as often as the self-test has it answer.
    :ivar digests: of SHA-256 over ciphertext and plaintext, alone.
    """

    def __init__(self, directory: Path, layers: tuple[int, ...]) -> None:
        board = Board(directory, _NO_PORT, vibration(layers=layers))
        self._model = board.places[0].model
        self._weights = self._model.read_bytes()
        self.size = len(self._weights)
        self._cipher, self._nonce = AESGCM(AESGCM.generate_key(256)), os.urandom(12)
        self._sealed = self._cipher.encrypt(self._nonce, self._weights, None)
        self._board = EdgedBoard(load_board(directory / "edged.toml"))
        self.edged: list[float] = []
        self.floor: list[float] = []
        self.digests: list[float] = []

    def take_turns(self, rounds: int, engine: Engine) -> None:
        """Measure each ``rounds`` times."""
        (installed,) = self._board.packages.all()
        keystore = self._board.keystore()
        with closing(State(self._board.directory)) as state:
            for _ in range(rounds + 1):
                package = self._board.verify(mapped(installed.path), installed.path)
                self._board.check_acceptable(package, state)
                started = time.perf_counter()
                model = load(package, keystore.agreement, engine)
                self.edged.append(time.perf_counter() - started)
                model.close()
                self.floor.append(self._floor(engine, answers=len(package.manifest.self_test.cases) + 1))
                started = time.perf_counter()
                hashlib.sha256(self._weights).digest()
                hashlib.sha256(self._sealed).digest()
                self.digests.append(time.perf_counter() - started)
        for times in (self.edged, self.floor, self.digests):
            del times[0]  # which meets cold caches

    def _floor(self, engine: Engine, answers: int) -> float:
        started = time.perf_counter()
        plain = self._cipher.decrypt(self._nonce, self._sealed, None)
        decrypted = time.perf_counter() - started
        del plain
        started = time.perf_counter()
        interpreter = engine.module.Interpreter(model_path=str(self._model), num_threads=1)
        interpreter.allocate_tensors()
        tensor = interpreter.get_input_details()[0]
        for _ in range(answers):
            interpreter.set_tensor(tensor["index"], np.zeros(tensor["shape"], np.float32))
            interpreter.invoke()
        return decrypted + time.perf_counter() - started


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Load models of three sizes from installed packages whose signatures were verified."""
    engine = choose("auto")
    rows, explained = [], []
    for name, layers in _LAYERS.items():
        one = _Load(directory / name.partition(" ")[0], layers)
        one.take_turns(_QUICK if quick else _ROUNDS[name], engine)
        size = f"{one.size / 1e6:.0f} MB"
        bare = ratio(one.edged, one.floor)
        rows.append(Row(f"unwrap + decrypt + load + self-test of {size} / AEAD + interpreter", bare, "x", _BAR))
        explained += [
            Row(f"  {size}: {what}", statistics.median(times) * 1e3, "ms")
            for what, times in (
                ("edged", one.edged),
                ("AEAD alone + interpreter alone", one.floor),
                ("SHA-256 over ciphertext and plaintext, alone", one.digests),
            )
        ]
    return rows + explained
