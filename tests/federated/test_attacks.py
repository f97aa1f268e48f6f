"""Attacks by a board, by an aggregator, and by whoever reaches a SuperLink; each test names the one that fails."""

# ruff: noqa: ANN401  Flower's messages, and what tests make of them

from __future__ import annotations

import hashlib
import os
import sys
import types
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common import Code, FitIns, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.compat.common import recorddict_compat as compat

from edged.base.errors import ConfigError
from edged.federated.flower import protocol
from edged.federated.flower.averaging import Averaging, choose
from edged.federated.flower.grid import open_run
from edged.federated.flower.lead import Settings, TrainingRequest, lead
from edged.federated.flower.processes import Child, Secret
from edged.federated.flower.protocol import ORDER, UPDATE, WEIGHTS
from edged.federated.flower.strategy import GuardedStrategy, Rules
from edged.federated.nodes import open_node_key
from edged.federated.order import Order, Plan
from edged.federated.update import Round, seal_update
from edged.federated.weights import Weights, difference, digest, encode, norm
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.cose.pem import private_openssh, public_pem
from support.federation import MODEL, Federation
from support.learner import Softmax, accuracy, examples
from support.ports import quiet_port
from support.waiting import wait_until

PLAN = Plan(epochs=2, batch=16, rate=0.05)
BOUND = 1.0

# --- real processes ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Four boards: one that is honest, and three that are not."""
    hows = {1: "x1000", 2: "nan", 3: "replay"}
    folder = tmp_path_factory.mktemp("attacks") / "f"
    with Federation(folder, 4, each=lambda number: {"how": hows.get(number, "")}) as running:
        yield running


def send(fleet: Federation, message_of: Any, archive: bytes | None = None, patience: float = 20.0) -> dict[str, str]:
    """Start a run, send every board a message, and return what each said where it gave no result."""
    secret = fleet.aggregator.secret_path.read_bytes()
    fleet.control.start_run(*([] if archive is None else [archive]))
    token = None
    while token is None:
        token = fleet.control.acquire(secret)
    numbers = fleet.control.nodes()
    named = {numbers[public_pem(one.node)][0]: name for name, one in fleet.aggregator.boards().items()}
    ca = fleet.aggregator.tls.ca.read_bytes()
    with open_run(fleet.aggregator.address, ca, token, patience) as (grid, _):
        grid.send_and_receive([message_of(node) for node in named])
        return {named[node]: why for node, why in grid.silent.items()}


def ordered(fleet: Federation, order: Order, signer: Any = None) -> Any:
    """Return what makes an order into a message."""
    weights = Parameters([encode(Softmax().weights())], WEIGHTS)
    key = fleet.aggregator.keystore().signer if signer is None else signer
    content = compat.fitins_to_recorddict(FitIns(weights, {ORDER: order.encode(key)}), keep_input=True)
    return lambda node: Message(content, dst_node_id=node, message_type="train", group_id="1")


def fresh(fleet: Federation, **changed: Any) -> Order:
    start = digest(Softmax().weights())
    parts = {
        "run": fleet.aggregator.begin_run(),
        "round": 1,
        "model": MODEL,
        "weights": start,
        "plan": PLAN,
        "masked": False,
    }
    return Order(**(parts | changed))


@pytest.fixture(scope="module")
def trained(fleet: Federation) -> Any:
    """Two rounds with all four boards."""
    x, y = examples(None, 600)
    scored: list[Weights] = []

    def held_out(weights: Weights) -> float:
        scored.append(weights)
        return accuracy(weights, x, y)

    wanted = TrainingRequest(MODEL, PLAN, Averaging(), Settings(2, 30), least=1, bound=BOUND)
    outcome = lead(fleet.aggregator, wanted, Softmax().weights(), held_out, lambda report: print(report.line()))
    return SimpleNamespace(outcome=outcome, scored=scored)


@pytest.mark.slow
def test_a_scaled_update_is_bounded_and_named(trained: Any) -> None:
    """x1000: its norm goes down to the bound; a round moves no further than that, and the model learns all the same."""
    for report, before, after in zip(trained.outcome.reports, trained.scored, trained.scored[1:], strict=False):
        assert "press-01" in report.clipped
        assert "press-01" in report.boards
        assert norm(difference(after, before)) <= BOUND * 1.001
    assert trained.outcome.reports[-1].score > trained.outcome.first


@pytest.mark.slow
def test_nan_weights_are_refused_and_named(trained: Any) -> None:
    for report in trained.outcome.reports:
        assert report.refused["press-02"] == "FormatError"
        assert "press-02" not in report.boards
    assert all(np.isfinite(one).all() for one in trained.outcome.weights)


@pytest.mark.slow
def test_a_replayed_update_is_refused_and_named(trained: Any) -> None:
    """The first round's update counts in the first round alone."""
    first, second = trained.outcome.reports
    assert "press-03" in first.boards
    assert second.refused["press-03"] == "DecryptionError"


@pytest.mark.slow
def test_a_replayed_round_is_refused(fleet: Federation, trained: Any) -> None:
    """The aggregator's own signature, from a round that boards took before: over a restart of the aggregator's too."""
    again = fresh(fleet, run=trained.outcome.run, round=2)
    assert send(fleet, ordered(fleet, again)) == dict.fromkeys(fleet.aggregator.boards(), "ReplayError")
    older = fresh(fleet, run=trained.outcome.run - 1, round=99)
    assert set(send(fleet, ordered(fleet, older)).values()) == {"ReplayError"}


@pytest.mark.slow
def test_an_order_by_another_key_is_refused(fleet: Federation) -> None:
    """Whoever reaches the SuperLink can start runs, and still commands no board."""
    silent = send(fleet, ordered(fleet, fresh(fleet), PrivateKey.generate()))
    assert silent == dict.fromkeys(fleet.aggregator.boards(), "UnknownSignerError")


@pytest.mark.slow
def test_an_order_for_another_model_and_swapped_weights_are_refused(fleet: Federation) -> None:
    assert set(send(fleet, ordered(fleet, fresh(fleet, model="door-lock"))).values()) == {"NotAllowedError"}
    assert set(send(fleet, ordered(fleet, fresh(fleet, weights=bytes(32)))).values()) == {"MismatchError"}


@pytest.mark.slow
def test_boards_answer_no_other_kinds_of_message(fleet: Federation) -> None:
    def ask(kind: str) -> set[str]:
        content = RecordDict({"config": ConfigRecord({"what": "everything"})})
        return set(send(fleet, lambda node: Message(content, dst_node_id=node, message_type=kind)).values())

    assert ask("query") == {"NotAllowedError"}
    assert ask("evaluate") == {"NotAllowedError"}


def pushed_app(touched: Path) -> bytes:
    """Return an app in Flower's own form, whose code leaves a mark."""
    code = f"from pathlib import Path\nPath({str(touched)!r}).touch()\n"
    config = (
        '[project]\nname = "edged"\nversion = "1.0.0"\n[tool.flwr.app]\npublisher = "edged"\n'
        '[tool.flwr.app.components]\nserverapp = "evil:app"\nclientapp = "evil:app"\n'
    )
    contents = {"pyproject.toml": config, "evil.py": code}
    index = [f"{name},{hashlib.sha256(one.encode()).hexdigest()},{8 * len(one)}" for name, one in contents.items()]
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in (*contents.items(), (".info/CONTENT", "\n".join(index))):
            file.writestr(name, content)
    return archive.getvalue()


@pytest.mark.slow
def test_a_pushed_app_is_refused_and_none_of_its_code_runs(fleet: Federation, tmp_path: Path) -> None:
    """The order is the aggregator's own and good; the app beside it is not, and says that it is edged's."""
    touched = tmp_path / "touched"
    app = pushed_app(touched)
    with zipfile.ZipFile(BytesIO(app)) as file:
        exec(file.read("evil.py"), types.ModuleType("evil").__dict__)
    assert touched.exists(), "the code would not have shown that it ran"
    touched.unlink()
    silent = send(fleet, ordered(fleet, fresh(fleet)), app)
    assert silent == dict.fromkeys(fleet.aggregator.boards(), "NotAllowedError")
    assert not touched.exists()
    for board in fleet.boards:
        assert board.answered["NotAllowedError"] >= 1
        assert "pushed an app" in board.log
        assert not [*board.folder.rglob("evil*")], "the app was unpacked"
    # and the board goes on
    honest = send(fleet, ordered(fleet, fresh(fleet)))
    assert honest == {}


@pytest.mark.slow
def test_flowers_own_supernode_would_have_run_it(
    fleet: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above is about this: the same app, pushed to a registered node that is started as Flower says."""
    touched = tmp_path / "touched"
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    board = fleet.stranger(8, start=False)
    fleet.aggregator.allow(board.node)
    fleet.register()
    key = open_node_key(board.folder / "node.key", board.record, board.keystore)
    arguments: list[str | Secret] = [
        *("--superlink", fleet.aggregator.address, "--root-certificates", str(fleet.aggregator.tls.ca)),
        *("--auth-supernode-private-key", Secret("key", private_openssh(key))),
        *("--host", "127.0.0.1", "--port", str(quiet_port())),
    ]
    try:
        with Child("flower-supernode", arguments, board.folder / "flower", tmp_path / "log"):
            fleet.wait_for(5)
            send(fleet, ordered(fleet, fresh(fleet)), pushed_app(touched), patience=25)
            assert touched.exists(), (tmp_path / "log").read_text()[-3000:]
    finally:
        fleet.aggregator.revoke(board.name)
        fleet.register()


@pytest.mark.slow
def test_a_board_that_is_not_registered_stays_out_until_it_is_allowed_and_again_when_it_is_revoked(
    fleet: Federation,
) -> None:
    stranger = fleet.stranger(9)
    stranger.service.wait_logged("the SuperNode ended")
    assert "Failed to initialize the connection" in stranger.log
    assert len(fleet.control.nodes()) == 4
    fleet.aggregator.allow(stranger.node)
    fleet.register()
    fleet.wait_for(5)
    fleet.aggregator.revoke(stranger.name)
    fleet.register()
    assert len(fleet.control.nodes()) == 4
    wait_until(lambda: stranger.log.count("the SuperNode ended") == 2, told=lambda: stranger.log)


@pytest.mark.slow
def test_no_secret_of_a_board_stands_in_a_file_an_argument_or_an_environment(fleet: Federation) -> None:
    """Flower's program reads node key and secret from memory; nothing of it keeps them."""
    board = fleet.boards[0]
    key = "BEGIN OPENSSH PRIVATE KEY"
    for path in board.folder.rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path
    supernodes = [
        path.parent
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"flower-supernode" in _read(path) and str(board.folder).encode() in _read(path.parent / "environ")
    ]
    assert supernodes
    for process in supernodes:
        assert b"OPENSSH" not in _read(process / "cmdline") + _read(process / "environ")
        environment = dict(item.split(b"=", 1) for item in _read(process / "environ").split(b"\0") if b"=" in item)
        assert environment[b"FLWR_TELEMETRY_ENABLED"] == b"0"
        assert environment[b"FLWR_DISABLE_UPDATE_CHECK"] == b"1"
        assert environment[b"FLWR_HOME"].startswith(str(board.folder).encode())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


# --- the guard by itself -------------------------------------------------------------------------


class Boards:
    """Boards that are only keys, and what they send."""

    def __init__(self, count: int, **rules: Any) -> None:
        averaging = rules.pop("averaging", Averaging())
        held_out = rules.pop("held_out", None)
        self.aggregator = PrivateKey.generate()
        self.keys = {node: PrivateKey.generate() for node in range(count)}
        self.start = Softmax().weights()
        named = {
            node: SimpleNamespace(device=SimpleNamespace(id=f"board-{node}", sign=key.public))
            for node, key in self.keys.items()
        }
        self.rules = Rules(**({"run": 1, "model": MODEL, "plan": PLAN, "masked": False, "least": 1} | rules))
        strategy = choose(averaging, list(self.start), count)
        self.guard = GuardedStrategy(
            strategy, self.rules, self.start, named, self.aggregator, self.aggregator, held_out
        )
        self.guard._inner.configure_fit(
            1, ndarrays_to_parameters(self.start), SimpleNamespace(num_available=lambda: count, sample=lambda **_: [])
        )

    def update(self, node: int, weights: Weights, about: Round | None = None, key: PrivateKey | None = None) -> Any:
        about = about or Round(1, 1, f"board-{node}")
        sealed = seal_update(weights, about, key or self.keys[node], Aead.A256GCM, self.aggregator.public)
        return self.result(node, Parameters([sealed], UPDATE))

    @staticmethod
    def result(node: int, parameters: Parameters, num_examples: int = 1) -> Any:
        proxy: Any = SimpleNamespace(node_id=node, cid=str(node))
        return proxy, FitRes(Status(Code.OK, ""), parameters, num_examples, {})

    def moved(self, by: float) -> Weights:
        return [one + np.float32(by) for one in self.start]

    def finish(self, *results: Any, number: int = 1) -> Any:
        mean, _ = self.guard.aggregate_fit(number, list(results), [])
        return None if mean is None else parameters_to_ndarrays(mean)


def test_an_update_of_a_node_that_is_not_allowed_does_not_count() -> None:
    boards = Boards(2)
    stranger = PrivateKey.generate()
    mean = boards.finish(boards.update(0, boards.moved(1)), boards.update(9, boards.moved(5), key=stranger))
    assert np.allclose(mean[0], 1)
    assert boards.guard.reports[0].refused == {"node 9": "NotAllowedError"}


def test_an_update_of_one_board_under_anothers_name_does_not_count() -> None:
    boards = Boards(2)
    forged = boards.update(1, boards.moved(5), key=boards.keys[0])
    assert np.allclose(boards.finish(boards.update(0, boards.moved(1)), forged)[0], 1)
    assert boards.guard.reports[0].refused == {"board-1": "UnknownSignerError"}


def test_a_board_counts_once_in_a_round() -> None:
    boards = Boards(1)
    mean = boards.finish(boards.update(0, boards.moved(1)), boards.update(0, boards.moved(9)))
    assert np.allclose(mean[0], 1)


def test_plain_weights_where_sealed_ones_are_wanted_do_not_count() -> None:
    boards = Boards(1)
    assert boards.finish(boards.result(0, ndarrays_to_parameters(boards.moved(1)))) is None
    assert boards.guard.reports[0].refused == {"board-0": "FormatError"}


def test_a_board_weighs_no_more_for_saying_that_it_has_many_examples() -> None:
    boards = Boards(2)
    loud = boards.update(0, boards.moved(3))
    loud[1].num_examples = 10**9
    assert np.allclose(boards.finish(loud, boards.update(1, boards.moved(1)))[0], 2)


def test_too_few_updates_move_nothing() -> None:
    boards = Boards(3, least=2)
    assert boards.finish(boards.update(0, boards.moved(1))) is None
    assert not boards.guard.reports[0].kept


def test_a_round_that_lowers_the_held_out_score_is_not_published() -> None:
    """Poison within every bound: what it does to the score gives it away; the last good weights stand, momenta too."""
    scores = iter([0.5, 0.8, 0.6, 0.79])
    boards = Boards(1, held_out=lambda _: next(scores), averaging=Averaging(strategy="fedadam"))
    good = boards.finish(boards.update(0, boards.moved(1)))
    momentum = [one.copy() for one in boards.guard._inner.m_t]
    assert boards.finish(boards.update(0, boards.moved(9), Round(1, 2, "board-0")), number=2) is None
    assert all(np.array_equal(a, b) for a, b in zip(boards.guard.weights, good, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(boards.guard._inner.m_t, momentum, strict=True))
    assert "fell from 80.00%" in boards.guard.reports[1].why
    # within the tolerance it is kept, and the best is what is published
    assert boards.finish(boards.update(0, boards.moved(1), Round(1, 3, "board-0")), number=3) is not None
    assert all(np.array_equal(a, b) for a, b in zip(boards.guard.published, good, strict=True))


def test_a_trimmed_mean_leaves_a_liar_out() -> None:
    boards = Boards(5, averaging=Averaging(strategy="trimmed", trim=0.2))
    mean = boards.finish(*(boards.update(node, boards.moved(1 if node else 1e6)) for node in range(5)))
    assert np.allclose(mean[0], 1)


@pytest.mark.parametrize("adaptive", [False, True])
def test_central_noise_is_that_of_the_norm_that_updates_were_clipped_to(adaptive: bool) -> None:
    """Flower's adaptive wrapper takes the next round's norm, and both take the number of boards that were asked."""
    averaging = Averaging(noise=2.0, clip=3.0, adaptive=adaptive)
    found = []
    for _ in range(12):
        boards = Boards(4, averaging=averaging)
        mean = boards.finish(*(boards.update(node, boards.moved(5)) for node in range(2)))
        found.append(np.concatenate([one.ravel() for one in mean]))
    clipped = 3.0 / np.sqrt(found[0].size)  # of a change that is the same everywhere
    noise = np.concatenate(found) - clipped
    deviation = 2.0 * 3.0 / 2
    if adaptive:  # it spends a little on counting who was clipped, and adds more to the rest for it
        wrapper = boards.guard._inner
        deviation = wrapper.noise_multiplier * 3.0 / 2
    assert abs(noise.std() / deviation - 1) < 5 / np.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 5 * deviation / np.sqrt(noise.size)


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise": 1.0},
        {"noise": 1.0, "clip": 1.0, "strategy": "fedadam"},
        {"noise": 1.0, "clip": 1.0, "strategy": "trimmed"},
        {"masked": True, "strategy": "trimmed"},
        {"masked": True, "noise": 1.0, "clip": 1.0, "adaptive": True},
        {"adaptive": True},
        {"trim": 0.5},
    ],
    ids=str,
)
def test_parts_that_do_not_go_together_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Averaging(**wrong)


def test_the_app_that_a_run_carries_holds_no_code_and_is_the_same_everywhere() -> None:
    with zipfile.ZipFile(BytesIO(protocol.app())) as file:
        assert file.namelist() == ["pyproject.toml", ".info/CONTENT"]
    assert protocol.digest() == "446e3267696756fc3792c51a490ad52edfe1e9d9a5e4409cd0050f0610c063ea"
