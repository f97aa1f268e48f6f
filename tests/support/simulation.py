"""Flower's simulation in this process: its link state, its queues and workers, and a backend of threads instead of Ray."""

# ruff: noqa: ANN401  Flower's messages, and what tests make of them

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable
from typing import Any, Self

from flwr.app import Message
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.fleet.vce import vce_api
from flwr.server.superlink.fleet.vce.backend import Backend
from flwr.server.superlink.fleet.vce.metrics import VceMetrics
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid

from edged.federated.flower.grid import Connected, note_silent
from support.waiting import PATIENCE

_RUN, _TASK = 7, 8
Answer = Callable[[int, Message], Message]


class _Threads(Backend):
    """Answers messages in as many threads as there are workers."""

    def __init__(self, answer: Answer, workers: int) -> None:
        super().__init__({})
        self._answer = answer
        self._workers = workers

    def build(self, app_fn: Any) -> None:
        """Nothing is loaded."""

    @property
    def num_workers(self) -> int:
        return self._workers

    def is_worker_idle(self) -> bool:
        return True

    def terminate(self) -> None:
        """Threads end with their queue."""

    def process_message(self, message: Message, context: Any) -> tuple[Message, Any]:
        # between processes a message would be another one
        return self._answer(int(context.node_config["partition-id"]), copy.deepcopy(message)), context


class _Grid(InMemoryGrid):
    """Flower's, which remembers who sent nothing, and shows a spy what came."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, pull_interval=0.02)
        self.silent: dict[int, str] = {}
        self.seen: list[Message] = []

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        sent = list(messages)
        replies = list(super().send_and_receive(sent, timeout=timeout))
        self.seen += [copy.deepcopy(one) for one in replies]
        self.silent.update(note_silent(sent, replies))
        return replies


class Simulation:
    """So many boards, each a number that ``answer`` is called with.

    :ivar nodes: number of each board, by Flower's number.
    """

    def __init__(self, boards: int, answer: Answer, workers: int = 2) -> None:
        factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        run = Run.create_empty(_RUN)
        run.primary_task_id, run.federation_id = _TASK, NOOP_FEDERATION_ID
        state = factory.state()
        state.run_ids[_RUN] = RunRecord(run=run)
        state.task_store[_TASK] = Task(task_id=_TASK, run_id=_RUN)
        self.nodes = vce_api._register_nodes(boards, factory)
        stores = vce_api._register_node_info_stores(self.nodes, run)
        self.grid = _Grid(factory)
        self.grid.set_run(run)
        self.boards = Connected(self.grid, _RUN)
        self._log = logging.getLogger("flwr")
        self._level = self._log.level
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=vce_api.run_api,
            args=(
                lambda: None,
                lambda: _Threads(answer, workers),
                self.nodes,
                factory,
                stores,
                self._stop,
                VceMetrics(),
            ),
        )

    def __enter__(self) -> Self:
        self._log.setLevel(logging.CRITICAL)  # a trace for every board that is away
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = _TASK, _RUN, self.grid.node.node_id
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)
        self._log.setLevel(self._level)
        assert not self._thread.is_alive()
