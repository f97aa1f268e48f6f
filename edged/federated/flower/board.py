"""A board's process for learning: a SuperNode as a child while the board may train, and what answers its tasks."""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import httpx

from edged.base import notify
from edged.base.errors import BrokerError
from edged.base.files import PRIVATE_FILE, make_private_directory, write_atomically
from edged.base.nothing import nothing
from edged.config.federated import FederatedTable
from edged.federated.flower import hush
from edged.federated.flower.processes import Child, Secret
from edged.federated.flower.runner import BoardApp, Runner
from edged.federated.work import RoundWorker
from edged.formats.cose.keys import PrivateKey
from edged.formats.cose.pem import private_openssh

_LOG = logging.getLogger(__name__)
_POLL = 0.5
_LOOK = 10.0
"""Seconds between looks at whether the board may train."""
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0
"""Seconds before a SuperNode is started again. After a power cut Flower refuses it until it was missed: 60 s."""
_SECRET = 32


class BoardProcess:
    """Keeps one board in touch with its aggregator.

    :param node: the node key.
    :param directory: private, for this process alone: what the SuperNode keeps, and the status.
    :param may_train: what is in the way of training now, or None.
    :param stop: ends :meth:`run`.
    """

    def __init__(
        self,
        table: FederatedTable,
        node: PrivateKey,
        worker: RoundWorker,
        directory: Path,
        *,
        may_train: Callable[[], str | None] = nothing,
        stop: threading.Event | None = None,
    ) -> None:
        hush()
        self.stop = stop or threading.Event()
        self._table = table
        self._node = node
        self._app = BoardApp(worker)
        self._directory = make_private_directory(directory)
        self._may_train = may_train
        self._answered: Counter[str] = Counter()
        self._state = "starts"

    def run(self) -> None:
        """Serve until ``stop`` is set."""
        notify.ready()
        pause = _FIRST_PAUSE
        while not self.stop.is_set():
            if (reason := self._may_train()) is not None:
                self._tell(f"waits: {reason}")
                self.stop.wait(_LOOK)
                continue
            began = time.monotonic()
            self._serve()
            if time.monotonic() - began > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            if not self.stop.is_set() and self._may_train() is None:
                self._tell(f"the SuperNode ended; another is started in {pause:.0f} s")
                self.stop.wait(pause * (1 - random.random() / 4))  # noqa: S311  so that a fleet does not come back as one
                pause = min(2 * pause, _LONGEST_PAUSE)
        notify.stopping()
        self._tell("does not run")

    def _serve(self) -> None:
        """Connect, and answer until the SuperNode ends, the board may not train any more, or all is over."""
        secret, port = os.urandom(_SECRET), free_port()
        with Child("flower-supernode", self._arguments(secret, port), self._directory / "flower") as child:
            runner = Runner(f"127.0.0.1:{port}", secret, self._app)
            runner.answered = self._answered
            self._tell("connects")
            looked = time.monotonic()
            try:
                while child.running and not self.stop.is_set():
                    with suppress(httpx.TransportError):  # it is on its way up, or down
                        if runner.step():
                            self._tell("answered")
                            continue
                        self._tell("waits for rounds")
                    if time.monotonic() - looked > _LOOK:
                        looked = time.monotonic()
                        if (reason := self._may_train()) is not None:
                            self._tell(f"leaves: {reason}")
                            return
                    self.stop.wait(_POLL)
            except BrokerError as error:
                _LOG.error("%s", error.message)
            finally:
                runner.close()

    def _arguments(self, secret: bytes, port: int) -> list[str | Secret]:
        return [
            *("--superlink", self._table.aggregator, "--root-certificates", self._table.ca),
            *("--auth-supernode-private-key", Secret("node-key", private_openssh(self._node))),
            *("--isolation", "process", "--host", "127.0.0.1", "--port", str(port)),
            *("--superexec-auth-secret-file", Secret("runner", secret)),
        ]

    def _tell(self, state: str) -> None:
        """Say how things stand, where that changed."""
        if state == self._state and state != "answered":
            return
        self._state = state
        _LOG.info("federated: %s", state)
        notify.status(state)
        status: Mapping[str, object] = {"state": state, "answered": dict(self._answered), "time": time.time()}
        write_atomically(status_path(self._directory), [json.dumps(status).encode()], mode=PRIVATE_FILE, replace=True)


def status_path(directory: Path) -> Path:
    """Return the file in which the process says how it is."""
    return directory / "status.json"


def free_port() -> int:
    """Return a port of the loopback that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
