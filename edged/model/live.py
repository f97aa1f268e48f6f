"""From a verified package to a model that answers: decrypted only into RAM, and believed only after its self-test."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.base.errors import ModelError, error_context
from edged.base.memory import SecretBuffer
from edged.formats.cose.keys import Agreement
from edged.formats.package.self_test import SelfTest
from edged.formats.package.verify import VerifiedPackage
from edged.formats.spec import Chain
from edged.model.known_answers import Judge, answers_of, check_answer, spread, to_floats
from edged.model.runtime import DelegateLibrary, Engine, Runner
from edged.model.signal.chain import CompiledChain, shapes_for

_LOG = logging.getLogger(__name__)
Floats = npt.NDArray[np.float32]


class Memory:
    """State of a model between the windows of one stream."""

    def __init__(self) -> None:
        self.tensors: dict[int, npt.NDArray[Any]] = {}
        self.blank = True

    def clear(self) -> None:
        """Restart with the next window."""
        self.tensors.clear()
        self.blank = True


class Model:
    """A signal chain around an interpreter: windows in, scores out.

    :ivar outputs: number of scores.
    :ivar orders: the order of each input's values, by its name in the manifest.
    :ivar keeps_state: state stays inside the interpreter, where only one stream of windows can have it.
    :ivar seconds: of the quickest answer of the self-test, the chain included; infinite before it.
    :ivar clipped: returns the share of a window's values that an integer input clips.
    :ivar prepare: turns a window into the model's tensors; it holds nothing of the weights.
    :raises ModelError: the chain does not fit the model's tensors.
    """

    def __init__(self, chain: Chain, interpreter: Runner) -> None:
        self.interpreter = interpreter
        shapes = shapes_for(chain, interpreter.inputs)
        if shapes != [tensor.shape for tensor in interpreter.inputs]:
            interpreter.resize(shapes)
        self._chain = CompiledChain(chain, interpreter.inputs, interpreter.outputs)
        self.prepare = self._chain.prepare
        self._feedback = self._chain.feedback
        self._channels = len(chain.input.channels)
        self._kind, self._judge = chain.output.kind, Judge(chain)
        self._has_state = interpreter.has_variables or interpreter.has_resources
        self.outputs = self._chain.outputs
        self.orders = self._chain.orders
        self.clipped = self._chain.clipped
        self.keeps_state = self._has_state and chain.model.reset == "gap"
        self.seconds = float("inf")
        if interpreter.has_resources and chain.model.reset != "gap":
            raise ModelError(
                f"model.reset: {chain.model.reset!r} would load the model anew each time: it keeps its state in"
                " resource variables, which no runtime clears",
                hint="model.reset = 'gap', or convert it with its state as inputs and outputs (model.feedback)",
            )

    def scores(self, window: Floats, memory: Memory | None = None) -> Floats:
        """Return the scores (float32 [k], after activation) for a window (float32 [rows, channels]).

        :param memory: of the windows before; without it, the model's state is cleared first.
        """
        prepared = self._chain.prepare(window)
        tensors = prepared.tensors
        if self._has_state and (memory is None or memory.blank):
            self.interpreter.reset()
        if memory is not None:
            memory.blank = False
            for place, tensor in memory.tensors.items():
                tensors[place] = tensor
        outputs = self.interpreter.run(*tensors)
        if memory is not None:
            for goes_in, comes_out in self._feedback:
                memory.tensors[goes_in] = outputs[comes_out]
        return self._chain.scores(outputs, prepared.values)

    def self_test(self, test: SelfTest) -> None:
        """Answer the signed vectors, each with its state cleared.

        :raises SelfTestError: an answer is not the signed one.
        """
        signed = np.stack([to_floats(case.scores) for case in test.cases])
        within = test.tolerance * spread(signed, self._kind)
        for number, (window, expected) in enumerate(answers_of(test), 1):
            got = self._timed(window.reshape(-1, self._channels))
            with error_context(f"self-test {number} of {len(test.cases)}"):
                check_answer(got, expected, within=within, judge=self._judge)
        self._timed(to_floats(test.cases[0].window).reshape(-1, self._channels))  # warm by now
        self.interpreter.reset()

    def _timed(self, window: Floats) -> Floats:
        start = time.perf_counter()
        scores = self.scores(window)
        self.seconds = min(self.seconds, time.perf_counter() - start)
        return scores

    def close(self) -> None:
        """Close the interpreter and free its memory."""
        self.interpreter.close()


class LiveModel(Model):
    """A model from a package, its weights in locked memory that is excluded from core dumps.

    :ivar identity: SHA-256 of the signed manifest.
    :ivar locked: the weights are kept out of swap.
    """

    def __init__(self, package: VerifiedPackage, buffer: SecretBuffer, interpreter: Runner) -> None:
        super().__init__(package.manifest, interpreter)
        self.manifest = package.manifest
        if self.manifest.outputs not in {None, self.outputs}:
            raise ModelError(f"the model gives {self.outputs} scores, and {self.manifest.outputs} were signed")
        self.identity = package.identity
        self.locked = buffer.locked
        self._buffer = buffer

    def close(self) -> None:
        """Close the interpreter, wipe the weights and free the memory."""
        super().close()
        self._buffer.close()


def load(
    package: VerifiedPackage,
    agreement: Agreement,
    engine: Engine,
    threads: int | None = None,
    delegates: Sequence[DelegateLibrary] = (),
) -> LiveModel:
    """Unwrap, decrypt into RAM, load and self-test a package. Whatever fails, all plaintext is wiped.

    :param threads: default: what the manifest says.
    :raises TrustError: as :meth:`VerifiedPackage.unwrap` and :meth:`UnwrappedPackage.decrypt_into`.
    :raises FormatError: the self-test is none.
    :raises ModelError: the runtime refuses the model, it does not fit its manifest, or its self-test disagrees.
    """
    package.check_release()
    package.check_sizes()
    manifest = package.manifest
    weights, answers = manifest.index("model"), manifest.index("self_test")
    with ExitStack() as undo, SecretBuffer(manifest.sealed[answers].plaintext.size) as room:
        buffer = undo.enter_context(SecretBuffer(manifest.sealed[weights].plaintext.size))
        unwrapped = package.unwrap(agreement)
        for part, number in ((room, answers), (buffer, weights)):
            part.lock()
            unwrapped.decrypt_into(part.view, number)
        interpreter = engine.open(
            buffer.path,
            threads or manifest.model.threads,
            signature=manifest.model.signature,
            delegates=delegates,
            on_mapped=buffer.seal_runtime_maps,
        )
        undo.callback(interpreter.close)
        model = LiveModel(package, buffer, interpreter)
        model.self_test(SelfTest.parse(room.view, manifest))
        if manifest.tested and engine.name not in {one.partition(" ")[0] for one in manifest.tested}:
            _LOG.warning(
                "model %s: its publisher tried it on %s, and not on %s: it answers the self-test as it should",
                *(manifest.name, ", ".join(manifest.tested), engine.title),
            )
        undo.pop_all()
        return model  # closing `room` trims this thread's freed memory: it may end long before the model is closed
