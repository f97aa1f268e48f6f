"""A federation for a test: a SuperLink, an aggregator, and boards in processes of their own, on the loopback."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from edged.base.files import make_private_directory
from edged.config.aggregator import AggregatorConfig, AggregatorTable
from edged.federated.aggregator import Aggregator
from edged.federated.flower.superlink import Control, register, superlink
from edged.federated.nodes import make_node_key
from edged.formats.cose.algorithms import Aead
from edged.formats.identity import Record, Role
from edged.keystore.file import FileKeystore
from support.ports import quiet_port
from support.process import Service
from support.waiting import wait_until

ENDS_WITH_THE_TEST = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: its process ends with the one that started it."""
_BOARD = Path(__file__).with_name("federated_board.py")
_TESTS = Path(__file__).parents[1]
MODEL = "bearing"


class TestBoard:
    """One board: its keys and, once it was started, its process.

    :ivar node: the file by which an aggregator allows it.
    """

    __test__ = False

    def __init__(self, folder: Path, number: int, setting: dict[str, Any]) -> None:
        self.folder = make_private_directory(folder)
        self.name = f"press-{number:02d}"
        self.keystore = FileKeystore.create("file:", folder / "keys", None)
        signer, agreement = self.keystore.signer, self.keystore.agreement
        self.record = Record(Role.DEVICE, self.name, signer.public, agreement.public, Aead.A256GCM, int(time.time()))
        encoded = self.record.encode(signer)
        (folder / "device.enrol").write_bytes(encoded)
        self.node = folder / f"{self.name}.node"
        self.node.write_bytes(make_node_key(folder / "node.key", self.record, encoded, self.keystore))
        (folder / "board.json").write_text(json.dumps({"number": number, **setting}))
        self._service: Service | None = None

    def start(self) -> None:
        """Start its process, the first time or again."""
        command = (*ENDS_WITH_THE_TEST, sys.executable, _BOARD, self.folder)
        self._service = Service(command, self.folder, "board", {"PYTHONPATH": str(_TESTS)})

    @property
    def service(self) -> Service:
        """Its process."""
        assert self._service is not None, "it was never started"
        return self._service

    @property
    def log(self) -> str:
        """All that it said, also before it was started again."""
        return self.service.log

    @property
    def answered(self) -> dict[str, int]:
        """How often it answered, by kind of answer."""
        with suppress(OSError, ValueError):
            found: dict[str, int] = json.loads((self.folder / "federated" / "status.json").read_text())["answered"]
            return found
        return {}

    def terminate(self) -> None:
        """Ask it to end, and do not wait for that."""
        if self._service is not None:
            self._service.process.terminate()

    def stop(self) -> None:
        """End it; does nothing if it was never started."""
        if self._service is not None:
            self._service.stop()


class Federation:
    """An aggregator that serves, and boards.

    :param setting: of every board; ``each`` adds to it by number.
    """

    def __init__(
        self,
        folder: Path,
        boards: int,
        setting: dict[str, Any] | None = None,
        each: Callable[[int], dict[str, Any]] = lambda _: {},
    ) -> None:
        self.folder = make_private_directory(folder)
        table = AggregatorTable(name="fleet", state=str(folder / "aggregator"), port=quiet_port())
        self.aggregator = Aggregator(AggregatorConfig(aggregator=table))
        self.aggregator.make()
        self.common = common = {
            "aggregator": self.aggregator.address,
            "record": str(self.aggregator.record_path),
            "ca": str(self.aggregator.tls.ca),
            "model": MODEL,
            "secure": False,
            "material": "softmax",
            **(setting or {}),
        }
        self.boards = [
            TestBoard(folder / f"board-{number}", number, {**common, **each(number)}) for number in range(boards)
        ]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for board in self.boards:
                self.aggregator.allow(board.node)
            _, self.control = stack.enter_context(superlink(self.aggregator, self.folder / "superlink.log"))
            for board in self.boards:
                stack.callback(board.stop)
                board.start()
            self.wait_for(len(self.boards))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for board in self.boards:
            board.terminate()  # all at once: each takes a while
        self._stack.close()

    def stranger(self, number: int, *, start: bool = True) -> TestBoard:
        """Start one more board, which nobody has allowed."""
        board = TestBoard(self.folder / f"board-{number}", number, self.common)
        self._stack.callback(board.stop)
        if start:
            board.start()
        return board

    def online(self) -> int:
        """Return how many the SuperLink takes for connected."""
        return sum(state == "online" for _, state in self.control.nodes().values())

    def wait_for(self, boards: int) -> None:
        """Wait until so many are connected, neither more nor fewer."""
        told = lambda: [self.log[-2000:], *(board.log[-2000:] for board in self.boards)]  # noqa: E731
        wait_until(lambda: self.online() == boards, every=0.1, told=told)

    def register(self) -> None:
        """Do what a serving aggregator does every two seconds."""
        register(self.aggregator, self.control)

    @property
    def log(self) -> str:
        """All that the SuperLink said."""
        return (self.folder / "superlink.log").read_text()


__all__ = ["MODEL", "Control", "Federation", "TestBoard"]
