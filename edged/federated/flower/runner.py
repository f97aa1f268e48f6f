"""Takes tasks from a SuperNode and answers them with the edged that is installed here: with a training, and no more.

A SuperNode can run what comes with a task by itself: it unpacks the pushed archive and imports it. So it is started
with ``--isolation process``, in which it waits for somebody else to take its tasks, and this module is the only one who
knows the secret to do so. It compares the archive's bytes, and never unpacks them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import httpx
from flwr.app import Message, RecordDict
from flwr.app.error import Error
from flwr.app.message_type import MessageType
from flwr.common import Code, FitIns, FitRes, Parameters, Status, ndarrays_to_parameters
from flwr.common.constant import ErrorCode, SubStatus
from flwr.compat.common import recorddict_compat as compat
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from edged.base.errors import BrokerError, EdgedError, FormatError, NotAllowedError
from edged.federated.flower import protocol
from edged.federated.flower.protocol import ORDER, UPDATE, WEIGHTS, heartbeat
from edged.federated.flower.secagg import Masking, is_masked
from edged.federated.order import Order
from edged.federated.work import RoundWorker, TrainedRound

_LOG = logging.getLogger(__name__)
_PROTECTED = frozenset({"/flwr.proto.Runtime/AcquireTask"})

ANSWERED = "answered"
"""The counter of all replies but refusals: a masked round has five."""

Responder = Callable[[Message], Message]


class Runner:
    """Answers what comes to one SuperNode.

    :param address: ``HOST:PORT`` of its Runtime API, on the loopback.
    :param secret: that it was started with.
    :param answer: makes a reply; an :class:`EdgedError` out of it becomes an error reply that names its kind.
    :ivar answered: how many replies of each kind went out; "answered", or the class name of a refusal.
    """

    def __init__(self, address: str, secret: bytes, answer: Responder) -> None:
        self.answered: Counter[str] = Counter()
        self._address = address
        self._answer = answer
        acquiring = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=_PROTECTED)
        self._client = RuntimeHttpClient.from_server_address(
            address,
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="edged"), acquiring],
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def step(self) -> bool:
        """Take one task, if there is one, and answer it; tell whether there was.

        Tasks of other kinds than training are taken too: the SuperNode waits for a reply to each, and for nothing else
        until it has come.

        :raises httpx.TransportError: the SuperNode does not answer.
        :raises BrokerError: it does, and not as it should: what it waits for now, it does not get.
        """
        try:
            found = self._client.AcquireTask(
                AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP, TaskType.AGENT_APP])
            )
            if not found.token:
                return False
            self._carry_out(found.token)
        except httpx.TransportError:
            raise
        except Exception as error:
            # a message that cannot be read, or a reply that is not taken: whoever sent it cannot end this process
            raise BrokerError(f"the SuperNode: {type(error).__name__}: {error}") from error
        return True

    def _carry_out(self, token: str) -> None:
        """Answer one task."""
        client = RuntimeHttpClient.from_server_address(
            self._address,
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="edged"), RuntimeTokenHttpInterceptor(token)],
        )
        sender = HeartbeatSender(heartbeat(client))
        sender.start()
        status, details = SubStatus.FAILED, "no reply"
        try:
            message, context, run, archive = pull_task_input(client)
            try:
                _check_app(run, archive.content)
                reply = self._answer(message)
                status, details = SubStatus.COMPLETED, ""
                self.answered[ANSWERED] += 1
            except EdgedError as error:
                reply, details = self._refusal(message, error), type(error).__name__
            except Exception as error:  # noqa: BLE001  whatever comes, whoever sent it cannot end this process
                _LOG.exception("a message was not understood")
                reply, details = self._refusal(message, EdgedError(str(error))), "EdgedError"
            push_message(client, reply, context)
        finally:
            push_task_output(client, None, status, details)  # no context: the SuperNode keeps nothing of ours
            sender.stop()
            client.close()

    def _refusal(self, message: Message, error: EdgedError) -> Message:
        """Count and log a refusal, and return the reply that says its kind, and nothing of this board."""
        kind = type(error).__name__
        self.answered[kind] += 1
        _LOG.error("refused: %s", error.message)
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, kind), reply_to=message)


def _check_app(run: Run, archive: bytes) -> None:
    """Check that a run carries edged's own app, byte for byte.

    :raises NotAllowedError: it carries another.
    """
    if archive != protocol.app():
        raise NotAllowedError(f"run {run.run_id} pushed an app ({run.fab_id}); nothing of it is run here")


class BoardApp:
    """Answers messages by a board's worker."""

    def __init__(self, worker: RoundWorker) -> None:
        self._worker = worker
        self._masking = Masking(worker.least, worker.join, self._train_masked)

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
        learned = self._train(_instructions(message))
        update = Parameters([self._worker.sealed(learned)], UPDATE)
        return Message(compat.fitres_to_recorddict(_result(update), keep_input=False), reply_to=message)

    def _train_masked(self, message: Message, joined: Order) -> tuple[Message, float]:
        """Train; return Flower's message with how far the weights moved, and the largest move of any weight."""
        moved = self._worker.moved(self._train(_instructions(message), joined))
        content: RecordDict = compat.fitres_to_recorddict(_result(ndarrays_to_parameters(moved)), keep_input=False)
        return Message(content, reply_to=message), max(float(abs(one).max(initial=0.0)) for one in moved)

    def _train(self, instructions: FitIns, joined: Order | None = None) -> TrainedRound:
        order = instructions.config.get(ORDER)
        tensors = instructions.parameters.tensors
        if not isinstance(order, bytes) or instructions.parameters.tensor_type != WEIGHTS or len(tensors) != 1:
            raise FormatError("the message carries no order with weights")
        return self._worker.train(order, tensors[0], joined)


def _instructions(message: Message) -> FitIns:
    try:
        return compat.recorddict_to_fitins(message.content, keep_input=True)
    except (KeyError, TypeError) as error:
        raise FormatError(f"the message is no FitIns: {error}") from error


def _result(parameters: Parameters) -> FitRes:
    """Return a result without anything beside the parameters: boards weigh the same, and tell no counts or losses."""
    return FitRes(Status(Code.OK, ""), parameters, num_examples=1, metrics={})
