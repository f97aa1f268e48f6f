"""Messages between one run and its boards, by the SuperLink's Runtime API, with patience that ends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
from flwr.app import Message
from flwr.common.constant import SubStatus
from flwr.common.serde import run_from_proto
from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.criterion import Criterion
from flwr.serverapp.grid import Grid
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from edged.base.errors import BrokerError
from edged.federated.flower.protocol import heartbeat

_POLL = 0.5
_UNKNOWN = "no reply"


class RunGrid(HttpGrid):  # type: ignore[misc]
    """A grid that gives up on boards that do not answer, and remembers why they did not.

    :param patience: seconds to wait where the caller states none.
    :ivar silent: why boards gave no result, by Flower's number; it is the caller's to clear.
    """

    def __init__(self, address: str, ca: bytes, token: str, patience: float) -> None:
        super().__init__(address, insecure=False, root_certificates=ca, token=token)
        self.silent: dict[int, str] = {}
        self._patience = patience
        self._retry_invoker.max_time = patience  # Flower's own tries for ever

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages, and return the replies that came in time."""
        sent = list(messages)
        waiting = set(self.push_messages(sent))
        until = time.monotonic() + (self._patience if timeout is None else timeout)
        replies: list[Message] = []
        while waiting and time.monotonic() < until:
            found = list(self.pull_messages(waiting))
            replies += found
            waiting -= {reply.metadata.reply_to_message_id for reply in found}
            if waiting:
                time.sleep(_POLL)
        self.silent.update(note_silent(sent, replies))
        return replies


def note_silent(sent: list[Message], replies: list[Message]) -> dict[int, str]:
    """Return, by number, which boards gave no result, and what they said instead."""
    silent = {message.metadata.dst_node_id: _UNKNOWN for message in sent}
    for reply in replies:
        if reply.has_error():
            silent[reply.metadata.src_node_id] = reply.error.reason or f"error {reply.error.code}"
        else:
            silent.pop(reply.metadata.src_node_id, None)
    return silent


@contextmanager
def open_run(address: str, ca: bytes, token: str, patience: float) -> Iterator[tuple[RunGrid, Run]]:
    """Do the aggregator's part of a run in the block; the SuperLink is told how it ended."""
    grid = RunGrid(address, ca, token, patience)
    client = grid._runtime_client  # noqa: SLF001  HttpGrid shows no other
    sender = HeartbeatSender(heartbeat(client))
    sender.start()
    status, details = SubStatus.FAILED, "the aggregator gave up"
    try:
        task = client.PullTaskInput(PullTaskInputRequest())
        run = run_from_proto(task.run)
        # Flower's messages take these from here
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task.task_id, run.run_id, grid.node.node_id
        grid.set_run(run)
        yield grid, run
        status, details = SubStatus.COMPLETED, ""
    except httpx.HTTPError as error:
        raise BrokerError(
            f"the SuperLink at {address} does not answer: {error}", hint="does `edged aggregator serve` run?"
        ) from error
    except RunNotRunningException:
        raise BrokerError(f"the SuperLink at {address} ended the run", hint="was it stopped from elsewhere?") from None
    finally:
        grid._retry_invoker.max_tries = 1  # noqa: SLF001  as above
        with suppress(httpx.HTTPError, RunNotRunningException):
            client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=details))
        sender.stop()
        grid.close()


class Connected(ClientManager):  # type: ignore[misc]
    """The boards that are connected now, asked of the SuperLink each time."""

    def __init__(self, grid: Grid, run: int) -> None:
        self._grid = grid
        self._run = run

    def all(self) -> dict[str, ClientProxy]:
        """Return them by number."""
        nodes = sorted(self._grid.get_node_ids())
        return {str(node): GridClientProxy(node, self._grid, self._run) for node in nodes}

    def num_available(self) -> int:
        """Return how many there are."""
        return len(self.all())

    def sample(
        self, num_clients: int, min_num_clients: int | None = None, criterion: Criterion | None = None
    ) -> list[ClientProxy]:
        """Return all of them: none is left out by chance, so that rounds are the same for everybody."""
        del num_clients, min_num_clients, criterion
        return list(self.all().values())

    def register(self, client: Any) -> bool:  # noqa: ANN401, ARG002  Flower's
        """Nothing registers here."""
        return False

    def unregister(self, client: Any) -> None:  # noqa: ANN401  Flower's
        """Nothing registers here."""

    def wait_for(self, num_clients: int, timeout: int) -> bool:
        """Wait until so many are connected, at most ``timeout`` seconds; tell whether they are."""
        until = time.monotonic() + timeout
        while (enough := self.num_available() >= num_clients) is False and time.monotonic() < until:
            time.sleep(_POLL)
        return enough
