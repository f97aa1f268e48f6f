"""SecAgg+: the aggregator gets the mean of what boards learned, to a quantisation step, and sees no update."""

# ruff: noqa: ANN401  Flower's messages, and what tests make of them

from __future__ import annotations

import copy
import importlib
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common import Code, FitRes, Status, bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.compat.common import recorddict_compat as compat
from flwr.supercore.task_identity import TaskIdentity

from edged.base.errors import EdgedError, NotAllowedError
from edged.federated.flower.averaging import Averaging, choose
from edged.federated.flower.grid import RunGrid
from edged.federated.flower.lead import Settings, TrainingRequest, lead, train
from edged.federated.flower.protocol import CONFIRM, CONFIRMATION, CONFIRMATIONS, ORDER, ROUND, STATEMENT, STATEMENTS
from edged.federated.flower.secagg import Masking, agree, bound, masks, quantisation_step
from edged.federated.flower.strategy import GuardedStrategy, Rules
from edged.federated.order import Order, Plan
from edged.federated.statement import Party
from edged.federated.weights import Weights
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.identity import Record, Role
from support.federation import MODEL, Federation
from support.learner import Softmax
from support.simulation import Simulation
from support.waiting import PATIENCE, wait_until

SHAPES = [(60, 4), (4,)]
NODES = (11, 12, 13, 14)
LARGEST = 0.5
STEP = quantisation_step(LARGEST)
PLAN = Plan(epochs=1, batch=16, rate=0.05)


def change(number: int, turn: int = 1) -> Weights:
    """Return the change that a simulated board learned."""
    random = np.random.default_rng(100 * turn + number)
    return [random.uniform(-LARGEST, LARGEST, shape).astype(np.float32) for shape in SHAPES]


def masked_updates(seen: list[Message]) -> list[npt.NDArray[Any]]:
    """Return what boards sent in place of their updates: whole vectors, the weights in front of them left out."""
    found = [message.content.config_records.get(RECORD_KEY_CONFIGS, {}) for message in seen if message.has_content()]
    return [
        np.concatenate([bytes_to_ndarray(one).ravel() for one in config[Key.MASKED_PARAMETERS][1:]])
        for config in found
        if Key.MASKED_PARAMETERS in config
    ]


def check_blind(seen: list[Message], changes: list[Weights]) -> None:
    """Check everything that an aggregator was sent: masked values, keys, shares, and nothing else of a board's."""
    stages = [
        {Key.PUBLIC_KEY_1, Key.PUBLIC_KEY_2},
        {Key.DESTINATION_LIST, Key.CIPHERTEXT_LIST},
        {Key.MASKED_PARAMETERS},
        set(),
        {Key.NODE_ID_LIST, Key.SHARE_LIST},
    ]
    vectors = [np.concatenate([one.ravel() for one in update]).astype(np.float64) for update in changes]
    for message in seen:
        if not message.has_content():
            continue
        content = message.content
        assert all(len(record) == 0 for record in content.array_records.values()), "an array beside the masked one"
        assert set(content.config_records.get(RECORD_KEY_CONFIGS, ())) in stages
        assert set(content.config_records.get(ROUND, ())) in ({STATEMENT}, {CONFIRMATION}, set())
        known = {RECORD_KEY_CONFIGS, ROUND}
        others = {name: dict(one) for name, one in content.config_records.items() if name not in known}
        assert all(dict(one) in ({}, {"code": 0, "message": ""}) for one in others.values()), others
        assert [dict(one) for one in content.metric_records.values()] in ([], [{"num_examples": 1}])
        told = repr([dict(one) for one in content.config_records.values()])
        for update in changes:
            for array in update:
                assert repr(array.tobytes())[2:42] not in told
    for masked in masked_updates(seen):
        assert masked.min() >= 0
        assert masked.max() < 1 << 32
        # uniform over [0, 2^32), as if nothing were behind it: mean and spread to five standard errors
        assert abs(masked.mean() / (1 << 32) - 0.5) < 5 / np.sqrt(12 * masked.size)
        for vector in vectors:
            assert abs(np.corrcoef(masked, vector)[0, 1]) < 5 / np.sqrt(vector.size)


# --- masks ---------------------------------------------------------------------------------------


def test_two_seeds_that_flower_folds_to_one_give_two_masks() -> None:
    """Flower XORs a seed down to 32 bits: words in another order, or a pair of equal ones, change nothing there."""
    seed = bytes(range(1, 33))
    swapped = seed[4:8] + seed[:4] + seed[8:]
    shapes: list[tuple[int, ...]] = [(5, 3), (7,), ()]
    for ours, theirs in zip(
        pseudo_rand_gen(seed, 1 << 32, shapes), pseudo_rand_gen(swapped, 1 << 32, shapes), strict=True
    ):
        assert np.array_equal(ours, theirs), "Flower's own generator has changed: is this adapter still needed?"
    with bound(b""):
        assert not np.array_equal(masks(seed, 1 << 32, shapes)[0], masks(swapped, 1 << 32, shapes)[0])


def test_flower_uses_our_masks_on_both_sides() -> None:
    for name in (  # by name: both packages hide the module behind a function
        "client.mod.secure_aggregation.secaggplus_mod",
        "server.workflow.secure_aggregation.secaggplus_workflow",
    ):
        module = importlib.import_module(f"flwr.{name}")
        assert (module.pseudo_rand_gen, module.generate_shared_key) == (masks, agree)


def test_masks_have_the_shapes_asked_for_and_every_bit_of_a_word() -> None:
    with bound(b""):
        parts = masks(b"s" * 44, 1 << 32, [(100, 40), (7,), ()])
        again = masks(b"s" * 44, 1 << 32, [(4007,), ()])
    assert [one.shape for one in parts] == [(100, 40), (7,), ()]
    bits = np.unpackbits(parts[0].astype("<u4").view(np.uint8)).reshape(-1, 32).mean(axis=0)
    assert np.all(abs(bits - 0.5) < 5 * 0.5 / np.sqrt(4000))
    assert np.array_equal(again[0][:4000], parts[0].ravel())
    with bound(b"other parties"):
        assert not np.array_equal(masks(b"s" * 44, 1 << 32, [(4007,), ()])[0], again[0])


def test_masks_modulo_anything_else_are_refused() -> None:
    with pytest.raises(NotAllowedError):
        masks(b"s" * 32, 1 << 24, [(1,)])


# --- a round in this process ---------------------------------------------------------------------


class Boards:
    """Simulated boards that mask what :func:`change` gives, and leave at a stage."""

    def __init__(self, leaves: dict[int, str] | None = None) -> None:
        self._leaves = leaves or {}
        self._masking: dict[int, Masking] = {}
        self._keys = [PrivateKey.generate() for _ in range(8)]
        self.aggregator = PrivateKey.generate()

    def __call__(self, number: int, message: Message) -> Message:
        stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
        if self._leaves.get(number) == stage:
            raise ConnectionError("this board has left")
        masking = self._masking.setdefault(
            number, Masking(3, lambda order: self._join(number, order), lambda one, _: self._train(number, one))
        )
        return masking(message)

    def record(self, number: int) -> Record:
        """Return a board's record."""
        sign = self._keys[number].public
        return Record(Role.DEVICE, f"board-{number}", sign, PrivateKey.generate().public, Aead.A256GCM, 0)

    def _join(self, number: int, order: bytes) -> Party:
        return Party(Order.open(order, self.aggregator.public), self.record(number), self._keys[number])

    def _train(self, number: int, message: Message) -> tuple[Message, float]:
        turn = int(message.metadata.group_id)
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters(change(number, turn)), 1, {})
        return Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=message), LARGEST


def masked_training(
    boards: int, answer: Boards, rounds: int = 1, tap: Callable[[int, Message], Message] | None = None
) -> tuple[GuardedStrategy, Any]:
    """Train; ``tap`` answers in the boards' place."""
    start = [np.zeros(shape, np.float32) for shape in SHAPES]
    rules = Rules(run=1, model=MODEL, plan=PLAN, masked=True, least=3)
    with Simulation(boards, tap or answer) as simulation:
        named = {node: SimpleNamespace(device=answer.record(number)) for node, number in simulation.nodes.items()}
        key = answer.aggregator
        guard = GuardedStrategy(choose(Averaging(masked=True), start, 3), rules, start, named, key, key, None)
        train(simulation.grid, simulation.boards, guard, rules, Settings(rounds, 20, LARGEST))
    return guard, simulation.grid.seen


def mean_of(numbers: list[int], turn: int = 1) -> Weights:
    return [
        np.mean(parts, axis=0, dtype=np.float64) for parts in zip(*(change(one, turn) for one in numbers), strict=True)
    ]


@pytest.mark.parametrize("boards", [3, 4, 7])
def test_a_masked_mean_equals_the_plain_mean_within_the_quantisation_step(boards: int) -> None:
    guard, seen = masked_training(boards, Boards())
    for ours, plain in zip(guard.weights, mean_of(list(range(boards))), strict=True):
        assert np.max(np.abs(ours - plain)) <= STEP
    check_blind(seen, [change(number) for number in range(boards)])


@pytest.mark.parametrize("stage", [*Stage.all(), CONFIRM])
def test_a_board_that_leaves_at_any_stage_does_not_spoil_the_round(stage: str) -> None:
    """Until it has sent its masked update it is not in the mean; from then on it is."""
    guard, seen = masked_training(5, Boards({2: stage}))
    left = [0, 1, 3, 4] if stage not in {CONFIRM, Stage.UNMASK} else [0, 1, 2, 3, 4]
    assert guard.reports[0].kept, guard.reports
    for ours, plain in zip(guard.weights, mean_of(left), strict=True):
        assert np.max(np.abs(ours - plain)) <= STEP
    check_blind(seen, [change(number) for number in range(5)])


def test_keys_and_masks_are_fresh_in_every_round() -> None:
    boards = Boards()
    guard, seen = masked_training(3, boards, rounds=2)
    keys = [
        message.content.config_records[RECORD_KEY_CONFIGS][Key.PUBLIC_KEY_1]
        for message in seen
        if Key.PUBLIC_KEY_1 in message.content.config_records.get(RECORD_KEY_CONFIGS, ())
    ]
    assert len(keys) == len(set(keys)) == 6
    wanted = [a + b for a, b in zip(mean_of([0, 1, 2], 1), mean_of([0, 1, 2], 2), strict=True)]
    for ours, plain in zip(guard.weights, wanted, strict=True):
        assert np.max(np.abs(ours - plain)) <= 2 * STEP


def _forged(content: RecordDict) -> None:
    content.config_records[ROUND][STATEMENT] = content.config_records[ROUND][STATEMENT][:-1] + b"\0"


def _swapped(content: RecordDict) -> None:
    content.config_records[RECORD_KEY_CONFIGS][Key.PUBLIC_KEY_1] = b"another"


def _silent(content: RecordDict) -> None:
    content.config_records[ROUND].clear()


@pytest.mark.parametrize(
    ("lie", "kind"), [(_forged, "SignatureError"), (_swapped, "MismatchError"), (_silent, "FormatError")]
)
def test_a_board_that_states_what_does_not_hold_is_left_out_and_spoils_no_round(
    lie: Callable[[RecordDict], None], kind: str
) -> None:
    boards = Boards()

    def tap(number: int, message: Message) -> Message:
        reply = boards(number, message)
        if number == 2 and STATEMENT in reply.content.config_records.get(ROUND, ()):
            lie(reply.content)
        return reply

    guard, _ = masked_training(5, boards, tap=tap)
    assert guard.reports[0].silent == {"board-2": kind}
    for ours, plain in zip(guard.weights, mean_of([0, 1, 3, 4]), strict=True):
        assert np.max(np.abs(ours - plain)) <= STEP


def test_too_few_boards_left_come_to_nothing_rather_than_to_a_sum_of_two() -> None:
    guard, _ = masked_training(3, Boards({0: Stage.COLLECT_MASKED_VECTORS}))
    assert not guard.reports[0].kept
    assert not any(one.any() for one in guard.weights)


# --- what a board refuses ------------------------------------------------------------------------


class Curious:
    """An aggregator of four boards in this process, which asks for more than it should."""

    def __init__(self) -> None:
        aggregator, keys = PrivateKey.generate(), {nid: PrivateKey.generate() for nid in NODES}
        records = {
            nid: Record(Role.DEVICE, f"board-{nid}", key.public, PrivateKey.generate().public, Aead.A256GCM, 0)
            for nid, key in keys.items()
        }
        named = {one.id: one.sign.thumbprint for one in records.values()}
        self.order = Order(1, 1, MODEL, bytes(32), PLAN, masked=True, boards=named).encode(aggregator)

        def join(nid: int) -> Callable[[bytes], Party]:
            return lambda order: Party(Order.open(order, aggregator.public), records[nid], keys[nid])

        self.boards = {nid: Masking(3, join(nid), self._train) for nid in NODES}
        self.replies: dict[int, ConfigRecord] = {}
        self.said: dict[int, bytes] = {}

    @staticmethod
    def _train(message: Message, _: Order) -> tuple[Message, float]:
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters(change(1)), 1, {})
        return Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=message), LARGEST

    def ask(self, nid: int, stage: str, beside: dict[str, Any] | None = None, **configs: Any) -> ConfigRecord:
        record = ConfigRecord({Key.STAGE: stage, **configs})
        content = RecordDict({RECORD_KEY_CONFIGS: record, ROUND: ConfigRecord(beside or {})})
        message = Message(content, dst_node_id=nid, message_type="train")
        message.metadata.__dict__["_message_id"] = "1"
        records = self.boards[nid](message).content.config_records
        for said in records.get(ROUND, {}).values():
            self.said[nid] = said
        return records.get(RECORD_KEY_CONFIGS, ConfigRecord())

    def setup(self, **changed: Any) -> None:
        asked = {
            Key.SAMPLE_NUMBER: 4,
            Key.SHARE_NUMBER: 4,
            Key.THRESHOLD: 3,
            Key.CLIPPING_RANGE: LARGEST,
            Key.TARGET_RANGE: 1 << 22,
            Key.MOD_RANGE: 1 << 32,
            Key.MAX_WEIGHT: 1.0,
        } | changed
        self.replies = {nid: self.ask(nid, Stage.SETUP, {ORDER: self.order}, **asked) for nid in self.boards}

    def share(self, among: tuple[int, ...] = (11, 12, 13, 14)) -> None:
        keys = {str(nid): [self.replies[nid][Key.PUBLIC_KEY_1], self.replies[nid][Key.PUBLIC_KEY_2]] for nid in among}
        beside = {STATEMENTS: [self.said[nid] for nid in among]}
        self.replies = {nid: self.ask(nid, Stage.SHARE_KEYS, beside, **keys) for nid in among}

    def collect(self, among: tuple[int, ...] = (11, 12, 13, 14)) -> None:
        shares = self.replies
        for nid in among:
            sources = [other for other in among if other != nid]
            texts = [
                shares[other][Key.CIPHERTEXT_LIST][shares[other][Key.DESTINATION_LIST].index(nid)] for other in sources
            ]
            self.ask(nid, Stage.COLLECT_MASKED_VECTORS, **{Key.SOURCE_LIST: sources, Key.CIPHERTEXT_LIST: texts})

    def confirm(self, active: list[int], dead: list[int]) -> None:
        for one in active:
            self.ask(one, CONFIRM, **{Key.ACTIVE_NODE_ID_LIST: active, Key.DEAD_NODE_ID_LIST: dead})

    def unmask(self, nid: int, active: list[int], dead: list[int]) -> ConfigRecord:
        sums = {Key.ACTIVE_NODE_ID_LIST: active, Key.DEAD_NODE_ID_LIST: dead}
        return self.ask(nid, Stage.UNMASK, {CONFIRMATIONS: [self.said[one] for one in active]}, **sums)


@pytest.fixture
def curious() -> Curious:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 8
    return Curious()


@pytest.mark.parametrize(
    "changed",
    [
        {Key.SAMPLE_NUMBER: 2, Key.SHARE_NUMBER: 2, Key.THRESHOLD: 2},
        {Key.THRESHOLD: 2},
        {Key.SHARE_NUMBER: 2, Key.THRESHOLD: 2},
        {Key.THRESHOLD: 5},
        {Key.MOD_RANGE: 1 << 23},
        {Key.TARGET_RANGE: 1 << 30},
        {Key.CLIPPING_RANGE: float("nan")},
        {Key.CLIPPING_RANGE: 0.0},
        {Key.MAX_WEIGHT: 1000.0},
    ],
    ids=str,
)
def test_a_round_with_unsafe_numbers_is_refused(curious: Curious, changed: dict[str, Any]) -> None:
    with pytest.raises(NotAllowedError):
        curious.setup(**changed)


def test_keys_of_two_boards_are_too_few(curious: Curious) -> None:
    curious.setup()
    with pytest.raises(NotAllowedError, match="share keys"):
        curious.share((11, 12))


def test_a_sum_of_two_boards_is_refused(curious: Curious) -> None:
    curious.setup()
    curious.share()
    with pytest.raises(NotAllowedError, match="add up"):
        curious.collect((11, 12))


def test_both_secrets_of_one_board_are_never_given(curious: Curious) -> None:
    curious.setup()
    curious.share()
    curious.collect()
    with pytest.raises(NotAllowedError, match="both secrets of board 14"):
        curious.unmask(11, [11, 12, 13, 14], [14])


def test_a_second_unmasking_is_refused(curious: Curious) -> None:
    """First a board as active, then as lost: together these would open its update."""
    curious.setup()
    curious.share()
    curious.collect()
    curious.confirm([11, 12, 13, 14], [])
    assert curious.unmask(11, [11, 12, 13, 14], [])[Key.SHARE_LIST]
    with pytest.raises(NotAllowedError, match="outside of a round"):
        curious.unmask(11, [11, 12, 13], [14])


def test_the_secret_of_a_board_that_is_not_in_the_sum_is_refused(curious: Curious) -> None:
    curious.setup()
    curious.share()
    curious.collect((11, 12, 13))
    with pytest.raises(NotAllowedError, match="not in the sum"):
        curious.unmask(11, [11, 12, 13], [14])


def test_a_refusal_ends_the_round_for_its_board(curious: Curious) -> None:
    curious.setup()
    curious.share()
    curious.collect()
    with pytest.raises(NotAllowedError):
        curious.unmask(11, [11, 12], [13, 14])
    with pytest.raises(NotAllowedError, match="outside of a round"):
        curious.unmask(11, [11, 12, 13, 14], [])


def test_a_change_that_the_range_would_cut_off_is_not_sent(curious: Curious) -> None:
    curious.setup(**{Key.CLIPPING_RANGE: LARGEST / 2})
    curious.share()
    with pytest.raises(NotAllowedError, match="cut off"):
        curious.collect()


def test_stages_out_of_order_are_refused(curious: Curious) -> None:
    curious.setup()
    with pytest.raises(EdgedError):
        curious.unmask(11, [11, 12, 13, 14], [])


def test_an_odd_message_is_refused_and_not_a_crash(curious: Curious) -> None:
    curious.setup()
    with pytest.raises(EdgedError):
        curious.ask(11, Stage.SHARE_KEYS, eleven=[b"a", b"b"])
    with pytest.raises(EdgedError):
        curious.ask(12, "something else")


# --- real processes ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_four_boards_in_processes_one_killed_in_the_second_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean is right to a step in both rounds; the spy at the server sees nothing; the lost board is named."""
    seen: list[Message] = []

    def spying(self: RunGrid, ids: Any, pull: Any = RunGrid.pull_messages) -> Any:
        found = list(pull(self, ids))
        seen.extend(copy.deepcopy(found))
        return found

    monkeypatch.setattr(RunGrid, "pull_messages", spying)
    wanted = TrainingRequest(
        MODEL, PLAN, Averaging(masked=True), Settings(rounds=2, patience=10, largest=LARGEST), least=3, bound=5.0
    )
    start = Softmax().weights()
    with Federation(tmp_path / "f", 4, {"secure": True}, lambda number: {"stuck": 2} if number == 3 else {}) as fleet:
        lost = fleet.boards[3]

        def cut_off() -> None:
            """Cut the power of a board while it trains in round 2."""
            wait_until((lost.folder / "stuck").exists)
            lost.service.kill()

        cutter = threading.Thread(target=cut_off, daemon=True)
        cutter.start()
        scored: list[Weights] = []
        outcome = lead(
            fleet.aggregator, wanted, start, lambda weights: len(scored) * 0.1 if scored.append(weights) is None else 0
        )
        cutter.join(PATIENCE)
        moved = {
            number: [
                [*np.load(board.folder / f"moved-{number}.npz").values()]
                for board in fleet.boards
                if (board.folder / f"moved-{number}.npz").exists()
            ]
            for number in (1, 2)
        }
    for report in outcome.reports:
        print(report.line())
    assert [len(moved[1]), len(moved[2])] == [4, 3]
    before = start
    for number in (1, 2):
        plain = [np.mean(parts, axis=0, dtype=np.float64) for parts in zip(*moved[number], strict=True)]
        off = max(
            np.max(np.abs(after - then - mean)) for after, then, mean in zip(scored[number], before, plain, strict=True)
        )
        print(f"round {number}: off the plain mean of {len(moved[number])} boards by {off:.2e}; a step is {STEP:.2e}")
        assert off <= STEP + 1e-7  # weights are float32
        before = scored[number]
    assert len(outcome.reports[0].boards) == 4
    assert sorted(outcome.reports[1].boards) == ["press-00", "press-01", "press-02"]
    assert set(outcome.reports[1].silent) == {"press-03"}
    assert len(masked_updates(seen)) == 7
    check_blind(seen, [*moved[1], *moved[2]])
