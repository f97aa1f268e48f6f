"""A board's share of a round: believe the order, train on its own examples, hand back what it learned.

:class:`RoundWorker` gets model and examples from its caller, so that its rules can be tried without Flower and without
a board. :func:`opener` takes them from a board.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edged.base.errors import MismatchError, MissingFileError, NotAllowedError
from edged.base.nothing import nothing
from edged.board.examples import Like
from edged.board.installation import Board
from edged.board.state import State
from edged.config.federated import FederatedTable
from edged.federated.fit import Fitted, fit
from edged.federated.order import Order, Rounds
from edged.federated.privacy import Budget
from edged.federated.statement import Party
from edged.federated.trainer import Trainer
from edged.federated.update import Round, seal_update
from edged.federated.weights import Weights, decode, difference, digest
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PublicKey, Signer
from edged.formats.identity import Record
from edged.formats.spec import fingerprint
from edged.keystore import Keystore

_LOG = logging.getLogger(__name__)
Floats = npt.NDArray[np.float32]
_LOOK = 2.0
"""Seconds between looks, while it trains, at whether the board still may."""


@dataclass(frozen=True)
class TrainingInput:
    """The model and the examples of one round.

    :ivar trainer: the model.
    :ivar x: this board's examples.
    :ivar y: the wanted answer to each.
    """

    trainer: Trainer
    x: Floats
    y: Floats


OpenInput = Callable[[str], AbstractContextManager[TrainingInput]]
"""Opens the model of a name with this board's examples for it."""


class TrainedRound(NamedTuple):
    """A round that this board has trained."""

    order: Order
    start: Weights
    fitted: Fitted


class RoundWorker:
    """Carries out orders on one board.

    :param table: what its owner allows.
    :param aggregator: the aggregator's pinned record.
    :param device: this board's own record.
    :param signer: the private half of the record's signing key.
    :param may_train: returns the reason that forbids training now, or None.
    """

    def __init__(
        self,
        table: FederatedTable,
        aggregator: Record,
        device: Record,
        signer: Signer,
        rounds: Rounds,
        budget: Budget,
        open_material: OpenInput,
        *,
        may_train: Callable[[], str | None] = nothing,
    ) -> None:
        self.least = table.least
        self._table = table
        self._aggregator = aggregator
        self._device = device
        self._signer = signer
        self._rounds = rounds
        self._budget = budget
        self._open = open_material
        self._may_train = may_train

    def join(self, order: bytes) -> Party:
        """Take part in a masked round, and note it as taken: nothing of another one is answered for it.

        :param order: signed.
        :raises TrustError: why it is not believed, or not allowed.
        :raises FormatError: it does not fit.
        """
        believed = self._believe(order, masked=True)
        believed.check_boards(self._table, self._device)
        self._rounds.take(self._key, believed.run, believed.round)
        return Party(believed, self._device, self._signer)

    def train(self, order: bytes, weights: bytes, joined: Order | None = None) -> TrainedRound:
        """Carry out an order, for as long as the board may train.

        :param order: signed.
        :param weights: that the round begins with, encoded.
        :param joined: of a masked round, the order that this board joined it by.
        :raises TrustError: why it is not believed, or not allowed.
        :raises FormatError: order or weights do not fit.
        :raises ModelError: the model cannot be trained.
        """
        believed = self._believe(order, masked=joined is not None)
        if joined is None:
            self._rounds.check(self._key, believed.run, believed.round)
        elif believed.digest != joined.digest:
            raise MismatchError("the order is not the one that this round began with")
        with self._open(believed.model) as material:
            start = decode(weights, material.trainer.shapes)
            believed.check_weights(digest(start))
            self._budget.check(believed.model, believed.plan, len(material.x))
            if joined is None:
                self._rounds.take(self._key, believed.run, believed.round)
            examples = material.x, material.y
            fitted = fit(material.trainer, start, *examples, believed.plan, np.random.default_rng(), self._watch())
        self._budget.spend(believed.model, believed.plan.noise, fitted.sampling, fitted.steps)
        _LOG.info("round %d of run %d: trained %s", believed.round, believed.run, believed.model)
        return TrainedRound(believed, start, fitted)

    def _believe(self, order: bytes, *, masked: bool) -> Order:
        believed = Order.open(order, self._key)
        believed.check(self._table)
        if believed.masked is not masked:
            raise MismatchError(
                "the order was signed for a masked round, or for one that is not, and this is the other"
            )
        self._check_free("not now")
        return believed

    def _check_free(self, when: str) -> None:
        if (reason := self._may_train()) is not None:
            raise NotAllowedError(f"{when}: {reason}", hint="[federated.when] says when this board may train")

    def _watch(self) -> Callable[[], None]:
        """Return what looks from time to time whether the board still may train."""
        looked = time.monotonic()

        def check() -> None:
            nonlocal looked
            if time.monotonic() - looked >= _LOOK:
                self._check_free("no longer")
                looked = time.monotonic()

        return check

    def sealed(self, learned: TrainedRound) -> bytes:
        """Return an update for the aggregator's eyes alone."""
        about = Round(learned.order.run, learned.order.round, self._device.id)
        aead = self._device.aead or Aead.A256GCM
        return seal_update(learned.fitted.weights, about, self._signer, aead, self._aggregator.sealing_key)

    @staticmethod
    def moved(learned: TrainedRound) -> Weights:
        """Return how far the weights moved: what goes into a masked sum."""
        return difference(learned.fitted.weights, learned.start)

    @property
    def _key(self) -> PublicKey:
        return self._aggregator.sign


def opener(board: Board, keystore: Keystore) -> OpenInput:
    """Return a function that opens a board's model with its examples for the length of a round."""

    @contextmanager
    def open_material(model: str) -> Iterator[TrainingInput]:
        with closing(State(board.directory)) as state:
            installed = board.in_use(model, state)
            if installed is None:
                raise MissingFileError(f"no package of model {model!r} can be used", hint="`edged models` lists them")
            engine = board.engine()
            with closing(board.load(installed, keystore, state, engine)) as live:
                trainer = Trainer(live.interpreter, engine)
                labels = live.manifest.output.labels
                like = Like(fingerprint(live.manifest), trainer.inputs, len(labels))
                with closing(board.examples(keystore)) as examples:
                    loaded = examples.load(model, like)
                for why, count in loaded.left_out.items():
                    _LOG.info("%s: %d windows are left out: %s", model, count, why)
                yield TrainingInput(trainer, loaded.x, loaded.y)

    return open_material
