"""What a board answers to Flower's messages: a training, masked or sealed, and nothing else."""

from __future__ import annotations

from flwr.app import Message, RecordDict
from flwr.app.message_type import MessageType
from flwr.common import Code, FitIns, FitRes, Parameters, Status, ndarrays_to_parameters
from flwr.compat.common import recorddict_compat as compat

from edged.base.errors import FormatError, NotAllowedError
from edged.federated.flower.secagg import Masking, is_masked
from edged.federated.work import Outcome, Worker

ORDER = "order"
"""Key of the signed order in the configuration of Flower's FitIns."""

WEIGHTS, UPDATE = "edged.weights.1", "edged.update.1"
"""What the one tensor of a message holds: encoded weights, or a sealed update."""


class BoardApp:
    """Answers messages by a board's worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._masking = Masking(worker.least, self._train_masked)

    def __call__(self, message: Message) -> Message:
        """Return the reply.

        :raises EdgedError: why there is none.
        """
        if message.metadata.message_type != MessageType.TRAIN:
            raise NotAllowedError(f"a message of type {message.metadata.message_type!r}: boards train, and no more")
        if not message.has_content():
            raise FormatError("a message without content")
        if is_masked(message):
            return self._masking(message)
        learned = self._train(_instructions(message), masked=False)
        update = Parameters([self._worker.sealed(learned)], UPDATE)
        return Message(compat.fitres_to_recorddict(_result(update), keep_input=False), reply_to=message)

    def _train_masked(self, message: Message) -> tuple[Message, float]:
        """Train; return Flower's message with how far the weights moved, and the largest move of any weight."""
        moved = self._worker.moved(self._train(_instructions(message), masked=True))
        content: RecordDict = compat.fitres_to_recorddict(_result(ndarrays_to_parameters(moved)), keep_input=False)
        return Message(content, reply_to=message), max(float(abs(one).max(initial=0.0)) for one in moved)

    def _train(self, instructions: FitIns, *, masked: bool) -> Outcome:
        order = instructions.config.get(ORDER)
        tensors = instructions.parameters.tensors
        if not isinstance(order, bytes) or instructions.parameters.tensor_type != WEIGHTS or len(tensors) != 1:
            raise FormatError("the message carries no order with weights")
        return self._worker.train(order, tensors[0], masked=masked)


def _instructions(message: Message) -> FitIns:
    try:
        return compat.recorddict_to_fitins(message.content, keep_input=True)
    except (KeyError, TypeError) as error:
        raise FormatError(f"the message is no FitIns: {error}") from error


def _result(parameters: Parameters) -> FitRes:
    """Return a result without anything beside the parameters: boards weigh the same, and tell no counts or losses."""
    return FitRes(Status(Code.OK, ""), parameters, num_examples=1, metrics={})
