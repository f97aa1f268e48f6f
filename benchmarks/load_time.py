"""How long it takes until a verified model answers, against its floor: decryption alone and the interpreter alone.

Both are measured in turns, and where the time of a load goes is measured in loads of their own.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from board import Board
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from report import Row, ratio
from subjects import CHANNELS, LABELS, ROWS, vibration

from edged.base.memory import SecretBuffer
from edged.board.installation import Board as EdgedBoard
from edged.board.state import State
from edged.config.load import load_board
from edged.formats.package import verify
from edged.model.live import Model, load
from edged.model.runtime import Engine, choose

_LAYERS = {
    "1 MB": (ROWS * CHANNELS, 256, 192, LABELS),
    "10 MB": (ROWS * CHANNELS, 1536, 832, LABELS),
    "100 MB": (ROWS * CHANNELS, 4096, 4096, 1280, LABELS),
}
_ROUNDS = {"1 MB": 60, "10 MB": 40, "100 MB": 15}
_QUICK = 3
_BARS = {"1 MB": 3.0, "10 MB": 2.3, "100 MB": 1.4}
_STEPS: dict[str, tuple[object, str]] = {
    "this board's own key (ECDH, key unwrap, commitment)": (verify.VerifiedPackage, "unwrap"),
    "locking the buffers": (SecretBuffer, "lock"),
    "AEAD, SHA-256 of the plaintext beside it": (verify, "decrypt_and_hash"),
    "the runtime": (Engine, "open"),
    "signal chain and tensors": (Model, "__init__"),
    "the self-test": (Model, "self_test"),
    "wiping and giving back freed memory": (SecretBuffer, "close"),
}
"""The steps of a load, each with the function that does it."""
_NO_PORT = 1


class _Load:
    """One model: loaded as edged does, and its floor, in turns in this process.

    :ivar edged: seconds of unwrap + decrypt + load + self-test.
    :ivar floor: of the AEAD's ``decrypt`` + a bare interpreter that answers as often as the self-test has it answer.
    :ivar steps: seconds of each step, of loads that were measured by themselves.
    :ivar whole: seconds of those loads.
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
        self.steps: dict[str, list[float]] = defaultdict(list)
        self.whole: list[float] = []

    def take_turns(self, rounds: int, engine: Engine) -> None:
        """Measure each ``rounds`` times."""
        (installed,) = self._board.packages.all()
        keystore = self._board.keystore()
        answers = len(np.load(self._model.with_name(f"{installed.name}-selftest.npz"))["scores"]) + 1

        def load_once(seconds: dict[str, float] | None = None) -> float:
            package = self._board.verify_installed(installed)
            self._board.check_acceptable(package, state)
            started = time.perf_counter()
            model = load(package, keystore.agreement, engine)
            took = time.perf_counter() - started
            if seconds is not None:
                for step in _STEPS:
                    self.steps[step].append(seconds[step])
            model.close()
            return took

        with closing(State(self._board.directory)) as state:
            for _ in range(rounds + 1):
                self.edged.append(load_once())
                self.floor.append(self._floor(engine, answers))
                with _watched() as seconds:
                    self.whole.append(load_once(seconds))
        for times in (self.edged, self.floor, self.whole, *self.steps.values()):
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


@contextmanager
def _watched() -> Iterator[dict[str, float]]:
    """Sum up the seconds that each step takes within the block; of closing, those of the load alone."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  whatever the step is given
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                seconds[step] += time.perf_counter() - started

        return call

    with ExitStack() as patches:
        for step, (owner, name) in _STEPS.items():
            patches.enter_context(mock.patch.object(owner, name, timed(step, getattr(owner, name))))
        yield seconds


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Load models of three sizes from installed packages whose signatures were verified."""
    engine = choose("auto")
    rows, explained = [], []
    for name, layers in _LAYERS.items():
        one = _Load(directory / name.partition(" ")[0], layers)
        one.take_turns(_QUICK if quick else _ROUNDS[name], engine)
        size = f"{one.size / 1e6:.0f} MB"
        bare = ratio(one.edged, one.floor)
        rows.append(Row(f"unwrap + decrypt + load + self-test of {size} / AEAD + interpreter", bare, "x", _BARS[name]))
        for what, times in (("edged", one.edged), ("AEAD alone + interpreter alone", one.floor)):
            explained.append(Row(f"  {size}: {what}", statistics.median(times) * 1e3, "ms"))
        whole = statistics.median(one.whole)
        for step, times in one.steps.items():
            explained.append(Row(f"    {step}: share", 100 * statistics.median(times) / whole, "%"))
    return rows + explained
