"""Masked rounds against who lies: a proxy between boards and their aggregator, and an aggregator that invents boards."""

# ruff: noqa: ANN401  Flower's messages, and what tests make of them

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common import FitIns, Parameters, bytes_to_ndarray
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import share_keys_plaintext_concat, share_keys_plaintext_separate
from flwr.compat.common import recorddict_compat as compat
from flwr.supercore.primitives.asymmetric import (
    bytes_to_public_key,
    generate_key_pairs,
    public_key_to_bytes,
)
from flwr.supercore.task_identity import TaskIdentity

from edged.base.errors import ConfigError, EdgedError, FormatError, MismatchError, NotAllowedError, ReplayError
from edged.config.federated import FederatedTable
from edged.federated.flower.protocol import (
    CONFIRM,
    CONFIRMATION,
    CONFIRMATIONS,
    ORDER,
    ROUND,
    STATEMENT,
    STATEMENTS,
    WEIGHTS,
)
from edged.federated.flower.runner import BoardApp
from edged.federated.flower.secagg import MODULUS, STEPS, agree, bound, masks, quantisation_step
from edged.federated.order import Order, Plan, Rounds
from edged.federated.privacy import Budget
from edged.federated.statement import Parties, Party
from edged.federated.weights import Weights, digest, encode
from edged.federated.work import RoundWorker, TrainedRound, TrainingInput
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.identity import Record, Role
from support.federation import MODEL
from support.learner import Softmax, examples

LARGEST = 2.0
PLAN = Plan(epochs=1, batch=16, rate=0.05)
START = Softmax().weights()
AGGREGATOR, SEALING = PrivateKey.generate(), PrivateKey.generate()
NODES = (11, 12, 13, 14, 15)


class Worker(RoundWorker):
    """A board's worker that leaves a note of how far its weights moved."""

    moves: Weights

    def train(self, order: bytes, weights: bytes, joined: Order | None = None) -> TrainedRound:
        outcome = super().train(order, weights, joined)
        self.moves = RoundWorker.moved(outcome)
        return outcome


class Board:
    """A board in this process."""

    def __init__(self, folder: Path, node: int, **table: Any) -> None:
        self.node, self.name = node, f"press-{node}"
        self.sign = PrivateKey.generate()
        self.record = Record(Role.DEVICE, self.name, self.sign.public, PrivateKey.generate().public, Aead.A256GCM, 0)
        self.worker = Worker(
            FederatedTable(aggregator="a:1", record="r", ca="c", models=(MODEL,), **table),
            Record(Role.AGGREGATOR, "fleet", AGGREGATOR.public, SEALING.public, None, 0),
            self.record,
            self.sign,
            Rounds(folder / f"rounds-{node}"),
            Budget(
                folder / f"budget-{node}", FederatedTable(aggregator="a:1", record="r", ca="c", models=("m",)).privacy
            ),
            self._open,
        )
        self._app = BoardApp(self.worker)

    @contextmanager
    def _open(self, _: str) -> Iterator[TrainingInput]:
        yield TrainingInput(Softmax(), *examples(self.node))

    def ask(self, stage: str, beside: dict[str, Any], content: RecordDict | None = None, **configs: Any) -> RecordDict:
        """Return the reply to one stage of a masked round."""
        content = copy.deepcopy(content) or RecordDict()
        content.config_records[RECORD_KEY_CONFIGS] = ConfigRecord({Key.STAGE: stage, **configs})
        content.config_records[ROUND] = ConfigRecord(beside)
        message = Message(content, dst_node_id=self.node, message_type="train", group_id="1")
        message.metadata.__dict__["_message_id"] = "1"
        return self._app(message).content

    def set_up(self, order: bytes, boards: int, threshold: int) -> RecordDict:
        """Return the reply to a round's first stage."""
        numbers = {
            Key.SAMPLE_NUMBER: boards,
            Key.SHARE_NUMBER: boards,
            Key.THRESHOLD: threshold,
            Key.CLIPPING_RANGE: LARGEST,
            Key.TARGET_RANGE: STEPS,
            Key.MOD_RANGE: MODULUS,
            Key.MAX_WEIGHT: 1.0,
        }
        return self.ask(Stage.SETUP, {ORDER: order}, **numbers)

    def collect(self, order: bytes, shares: dict[int, bytes]) -> RecordDict:
        """Return what the board sends in place of its update.

        :param shares: sealed for this board, by who sent them.
        """
        fit = compat.fitins_to_recorddict(FitIns(Parameters([encode(START)], WEIGHTS), {ORDER: order}), keep_input=True)
        lists = {Key.SOURCE_LIST: [*shares], Key.CIPHERTEXT_LIST: [*shares.values()]}
        return self.ask(Stage.COLLECT_MASKED_VECTORS, {}, fit, **lists)


@pytest.fixture(autouse=True)
def _task() -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 8


def order_for(boards: dict[str, bytes], **changed: Any) -> bytes:
    parts = {"run": 5, "round": 1, "model": MODEL, "weights": digest(START), "plan": PLAN, "masked": True}
    return Order(**(parts | {"boards": boards} | changed)).encode(AGGREGATOR)


def named(boards: Iterable[Any]) -> dict[str, bytes]:
    return {board.name: board.sign.public.thumbprint for board in boards}


def keys_of(reply: RecordDict) -> list[bytes]:
    keys = reply.config_records[RECORD_KEY_CONFIGS]
    return [keys[Key.PUBLIC_KEY_1], keys[Key.PUBLIC_KEY_2]]


def flat(weights: Iterable[Any]) -> Any:
    return np.concatenate([np.ravel(one) for one in weights])


def whole(masked: list[Any]) -> Weights:
    """Return the numbers that quantised values stand for; the first is Flower's own, and no weight."""
    return [one.astype(np.float64) % MODULUS * 2 * LARGEST / STEPS - LARGEST for one in masked[1:]]


# --- invented neighbours -------------------------------------------------------------------------


class Invented:
    """A board that exists only in the hands of whoever lies."""

    def __init__(self, node: int) -> None:
        self.node, self.name, self.sign = node, f"press-{node}", PrivateKey.generate()
        (self.sk1, self.pk1), (self.sk2, self.pk2) = generate_key_pairs(), generate_key_pairs()
        self.keys = [public_key_to_bytes(self.pk1), public_key_to_bytes(self.pk2)]

    def state(self, order: bytes) -> bytes:
        record = Record(Role.DEVICE, self.name, self.sign.public, PrivateKey.generate().public, Aead.A256GCM, 0)
        return Party(Order.open(order, AGGREGATOR.public), record, self.sign).state(self.node, tuple(self.keys))


def read_update(board: Board, order: bytes, invented: list[Invented]) -> Weights:
    """Return the update of a board whose neighbours are all invented: what lies between them is in one hand."""
    reply = board.set_up(order, 1 + len(invented), 3)
    public = {board.node: keys_of(reply), **{one.node: one.keys for one in invented}}
    statements = [reply.config_records[ROUND][STATEMENT], *(one.state(order) for one in invented)]
    shared = board.ask(
        Stage.SHARE_KEYS, {STATEMENTS: statements}, **{str(node): keys for node, keys in public.items()}
    ).config_records[RECORD_KEY_CONFIGS]
    sealed = dict(zip(shared[Key.DESTINATION_LIST], shared[Key.CIPHERTEXT_LIST], strict=True))
    pk1, pk2 = map(bytes_to_public_key, public[board.node])
    with bound(Parties.gather(Order.open(order, AGGREGATOR.public), statements).binding):
        opened, made = [], {}
        for one in invented:
            key = agree(one.sk2, pk2)
            opened.append(share_keys_plaintext_separate(decrypt(key, sealed[one.node]))[2])
            made[one.node] = encrypt(key, share_keys_plaintext_concat(one.node, board.node, b"share", b"share"))
        sent = board.collect(order, made).config_records[RECORD_KEY_CONFIGS][Key.MASKED_PARAMETERS]
        masked = [bytes_to_ndarray(one) for one in sent]
        shapes = [one.shape for one in masked]
        masked = [one - mask for one, mask in zip(masked, masks(combine_shares(opened), MODULUS, shapes), strict=True)]
        for one in invented:
            sign = -1 if board.node > one.node else 1
            pairs = masks(agree(one.sk1, pk1), MODULUS, shapes)
            masked = [each + sign * pair for each, pair in zip(masked, pairs, strict=True)]
    return whole(masked)


def test_a_proxy_that_invents_three_neighbours_reads_nothing_of_a_board(tmp_path: Path) -> None:
    """It has an order of four boards that the aggregator signed, stands before one of them, and is the other three."""
    boards = [Board(tmp_path, node) for node in NODES[:4]]
    invented = [Invented(node) for node in NODES[1:4]]
    with pytest.raises(NotAllowedError, match="no board that the order names"):
        read_update(boards[0], order_for(named(boards)), invented)


def test_an_aggregator_that_invents_boards_reads_one_boards_update(tmp_path: Path) -> None:
    """Not promised, and so it is shown: whoever signs orders may name boards of its own. ``federated.peers`` is next."""
    board, invented = Board(tmp_path, 11), [Invented(node) for node in NODES[1:4]]
    read = read_update(board, order_for(named([board, *invented])), invented)
    assert np.max(np.abs(flat(read) - flat(board.worker.moves))) <= quantisation_step(LARGEST)


@pytest.mark.parametrize("names", [True, False], ids=["another-name", "another-key"])
def test_an_aggregator_cannot_invent_a_peer(tmp_path: Path, names: bool) -> None:
    """A name alone it can take for a board of its own; a fingerprint it cannot."""
    peer, invented = Board(tmp_path, 12), [Invented(node) for node in NODES[1:4]]
    peers = ("press-99",) if names else (f"press-12 {peer.record.fingerprint}",)
    board = Board(tmp_path, 11, peers=peers)
    with pytest.raises(NotAllowedError, match=r"federated\.peers"):
        read_update(board, order_for(named([board, *invented])), invented)
    good = Board(tmp_path, 13, peers=("press-12", f"press-12 {peer.record.fingerprint}"))
    good.set_up(order_for(named([board, peer, good]), run=6), 3, 3)


@pytest.mark.parametrize("peers", [("Press 12",), ("press-12 12ab",), ("press-12 " + "xy" * 16,)], ids=str)
def test_a_peer_is_a_name_with_or_without_a_fingerprint(peers: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"federated\.peers"):
        FederatedTable(aggregator="a:1", record="r", ca="c", models=(MODEL,), peers=peers)


# --- what boards say to one another ---------------------------------------------------------------


class Fleet:
    """Boards, and a proxy among them that carries what it likes."""

    def __init__(self, folder: Path, boards: int = 5, threshold: int = 3) -> None:
        self.boards = {node: Board(folder, node) for node in NODES[:boards]}
        self.order = order_for(named(self.boards.values()))
        self.threshold = threshold
        self.replies = {node: board.set_up(self.order, boards, threshold) for node, board in self.boards.items()}
        self.keys = {node: keys_of(reply) for node, reply in self.replies.items()}
        self.statements = {node: reply.config_records[ROUND][STATEMENT] for node, reply in self.replies.items()}
        self.sealed: dict[int, dict[int, bytes]] = {}

    def share(self, node: int, statements: list[bytes] | None = None, **keys: list[bytes]) -> None:
        said = [*self.statements.values()] if statements is None else statements
        named_keys = {str(one): found for one, found in self.keys.items()} | keys
        reply = self.boards[node].ask(Stage.SHARE_KEYS, {STATEMENTS: said}, **named_keys)
        shares = reply.config_records[RECORD_KEY_CONFIGS]
        self.sealed[node] = dict(zip(shares[Key.DESTINATION_LIST], shares[Key.CIPHERTEXT_LIST], strict=True))

    def collect(self, node: int, among: Iterable[int] | None = None) -> list[Any]:
        shares = {one: self.sealed[one][node] for one in among or self.boards if one != node}
        found = self.boards[node].collect(self.order, shares).config_records[RECORD_KEY_CONFIGS]
        return [bytes_to_ndarray(one) for one in found[Key.MASKED_PARAMETERS]]

    def confirm(self, node: int, active: list[int], dead: list[int]) -> bytes:
        lists = {Key.ACTIVE_NODE_ID_LIST: active, Key.DEAD_NODE_ID_LIST: dead}
        return self.boards[node].ask(CONFIRM, {}, **lists).config_records[ROUND][CONFIRMATION]

    def unmask(self, node: int, active: list[int], dead: list[int], said: list[bytes]) -> dict[int, bytes]:
        lists = {Key.ACTIVE_NODE_ID_LIST: active, Key.DEAD_NODE_ID_LIST: dead}
        found = self.boards[node].ask(Stage.UNMASK, {CONFIRMATIONS: said}, **lists).config_records[RECORD_KEY_CONFIGS]
        return dict(zip(found[Key.NODE_ID_LIST], found[Key.SHARE_LIST], strict=True))

    def collected(self) -> Fleet:
        for node in self.boards:
            self.share(node)
        for node in self.boards:
            self.collect(node)
        return self


def _other(fleet: Fleet, **changed: Any) -> bytes:
    """Return the statement of board 12 as another order, node or keys would have it."""
    order = Order.open(changed.pop("order", fleet.order), AGGREGATOR.public)
    board = fleet.boards[12]
    keys = changed.pop("keys", tuple(fleet.keys[12]))
    return Party(order, board.record, board.sign).state(changed.pop("node", 12), keys)


STATED: dict[str, Callable[[Fleet], list[bytes]]] = {
    "left-out": lambda fleet: [one for node, one in fleet.statements.items() if node != 12],
    "twice": lambda fleet: [*fleet.statements.values(), fleet.statements[12]],
    "own-left-out": lambda fleet: [one for node, one in fleet.statements.items() if node != 11],
    "another-order": lambda fleet: _with(
        fleet, _other(fleet, order=order_for(named(fleet.boards.values()), plan=Plan(epochs=2, batch=16, rate=0.05)))
    ),
    "another-round": lambda fleet: _with(fleet, _other(fleet, order=order_for(named(fleet.boards.values()), round=2))),
    "another-node": lambda fleet: _with(fleet, _other(fleet, node=16)),
    "anothers-node": lambda fleet: _with(fleet, _other(fleet, node=13)),
    "other-keys": lambda fleet: _with(fleet, _other(fleet, keys=(b"a", b"b"))),
    "no-statement": lambda fleet: _with(fleet, b"\xa0"),
}


def _with(fleet: Fleet, statement: bytes) -> list[bytes]:
    return [*(fleet.statements | {12: statement}).values()]


@pytest.mark.parametrize("how", STATED)
def test_keys_that_their_boards_did_not_sign_for_in_this_round_are_refused(tmp_path: Path, how: str) -> None:
    fleet = Fleet(tmp_path, 4)
    with pytest.raises(EdgedError) as refused:
        fleet.share(11, STATED[how](fleet))
    assert type(refused.value) is not EdgedError
    with pytest.raises(NotAllowedError, match="outside of a round"):
        fleet.share(11)


def test_swapped_keys_beside_good_statements_are_refused(tmp_path: Path) -> None:
    fleet, liar = Fleet(tmp_path, 4), Invented(12)
    with pytest.raises(NotAllowedError, match="signed for"):
        fleet.share(11, **{"12": liar.keys})


def test_a_board_that_the_order_does_not_name_takes_no_part(tmp_path: Path) -> None:
    boards = [Board(tmp_path, node) for node in NODES[:4]]
    others = named(boards[1:])
    for wrong in (others, others | {"press-11": PrivateKey.generate().public.thumbprint}):
        with pytest.raises(NotAllowedError, match="does not name this board"):
            boards[0].set_up(order_for(wrong), 4, 3)
    with pytest.raises(NotAllowedError, match="2 boards take part"):
        boards[0].set_up(order_for(named(boards[:2])), 4, 3)


def test_a_masked_round_is_noted_when_it_is_joined(tmp_path: Path) -> None:
    """A proxy that asks twice gets two sets of keys for one round otherwise: across a restart, too."""
    fleet = Fleet(tmp_path, 4)
    for board in (fleet.boards[11], Board(tmp_path, 11)):
        board.sign = fleet.boards[11].sign
        with pytest.raises((ReplayError, NotAllowedError)):
            board.set_up(fleet.order, 4, 3)
    with pytest.raises(ReplayError):
        fleet.boards[12].set_up(fleet.order, 4, 3)


def test_another_order_than_the_round_began_with_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4)
    for node in fleet.boards:
        fleet.share(node)
    fleet.order = order_for(named(fleet.boards.values()), plan=Plan(epochs=9, batch=16, rate=0.05))
    with pytest.raises(MismatchError, match="began with"):
        fleet.collect(11)


def test_a_first_stage_without_an_order_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        Board(tmp_path, 11).ask(Stage.SETUP, {})


# --- one sum a round ------------------------------------------------------------------------------


def test_boards_that_are_told_of_different_sums_open_none_of_them(tmp_path: Path) -> None:
    """Each answer by itself is allowed; together they would open the keys of all with whom one board masks."""
    fleet = Fleet(tmp_path)
    for node in fleet.boards:
        fleet.share(node)
    fleet.collect(11, (11, 12, 13))
    for node in (12, 13, 14, 15):
        fleet.collect(node)
    told = {
        12: ([11, 12, 14], [13]),
        13: ([11, 13, 14], [12]),
        14: ([11, 14, 15], [12, 13]),
        15: ([11, 14, 15], [12, 13]),
    }
    said = {node: fleet.confirm(node, *sums) for node, sums in told.items()}
    for node, sums in told.items():
        same = [said[other] for other, theirs in told.items() if theirs == sums]
        with pytest.raises(NotAllowedError, match="have confirmed the sum"):
            fleet.unmask(node, *sums, same)


def test_a_board_signs_for_one_sum_a_round(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path).collected()
    fleet.confirm(11, [11, 12, 13, 14], [15])
    with pytest.raises(NotAllowedError, match="a second sum"):
        fleet.confirm(11, [11, 12, 13, 14, 15], [])


def test_a_sum_is_opened_with_the_signatures_of_enough_boards_in_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path).collected()
    active, dead = [11, 12, 13, 14], [15]
    said = {node: fleet.confirm(node, active, dead) for node in active}
    assert set(fleet.unmask(11, active, dead, [said[12], said[13], said[14]])) == {*active, *dead}
    with pytest.raises(NotAllowedError, match="have confirmed"):
        fleet.unmask(12, active, dead, [said[12], said[13]])
    with pytest.raises(NotAllowedError, match="once"):
        fleet.unmask(13, active, dead, [said[11], said[12], said[12]])
    with pytest.raises(MismatchError):
        fleet.unmask(14, [11, 12, 13, 14, 15], [], [*said.values()])


def test_boards_that_were_told_of_different_parties_have_no_masks_in_common(tmp_path: Path) -> None:
    """A proxy that leaves a board out for some, and not for others, spoils the round, and learns nothing by it."""
    fleet = Fleet(tmp_path, 4)
    fleet.share(11)
    del fleet.statements[14], fleet.keys[14]
    fleet.share(12)
    fleet.share(13)
    with pytest.raises(FormatError, match="InvalidToken"):
        fleet.collect(12, (11, 12, 13))
