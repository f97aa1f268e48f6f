"""A board by itself, and all that it believes and allows: orders, rounds, its node key, the privacy that is spent."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edged.base.errors import (
    ConfigError,
    DecryptionError,
    EdgedError,
    FormatError,
    KeystoreError,
    MismatchError,
    NotAllowedError,
    NotARecipientError,
    OutputError,
    ReplayError,
    SignatureError,
    UnknownSignerError,
)
from edged.config.federated import FederatedTable, Privacy
from edged.federated.flower import need_flower
from edged.federated.nodes import NodeRecord, make_node_key, open_node_key
from edged.federated.order import Order, Plan, Rounds
from edged.federated.privacy import Budget
from edged.federated.update import Round, open_update, seal_update
from edged.federated.weights import digest
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.cose.pem import private_openssh, public_pem
from edged.formats.cose.sign1 import sign
from edged.formats.identity import Record, Role
from edged.keystore.file import FileKeystore

KEY, OTHER = PrivateKey.generate(), PrivateKey.generate()
PLAN = Plan(epochs=1, batch=8, rate=0.1)
WEIGHTS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)]
SHAPES = [one.shape for one in WEIGHTS]
ORDER = Order(run=5, round=2, model="bearing", weights=digest(WEIGHTS), plan=PLAN, masked=False)


def table(**changed: object) -> FederatedTable:
    return FederatedTable(
        **{"aggregator": "a:1", "record": "r", "ca": "c", "models": ("bearing",), "secure": False, **changed}
    )


# --- orders --------------------------------------------------------------------------------------


def test_an_order_comes_out_as_it_went_in() -> None:
    planned = replace(ORDER, plan=Plan(epochs=3, batch=16, rate=0.25, proximal=0.5, clip=1.0, noise=0.7, bound=2.0))
    for order in (ORDER, planned):
        assert Order.open(order.encode(KEY), KEY.public) == order


def test_an_order_of_another_aggregator_is_refused() -> None:
    with pytest.raises(UnknownSignerError):
        Order.open(ORDER.encode(OTHER), KEY.public)


def test_no_bit_of_an_order_can_be_changed() -> None:
    data = bytearray(ORDER.encode(KEY))
    for at in range(len(data)):
        data[at] ^= 1
        with pytest.raises(EdgedError):
            Order.open(bytes(data), KEY.public)
        data[at] ^= 1


@pytest.mark.parametrize(
    "changed",
    [
        {"run": -1},
        {"round": True},
        {"model": "../x"},
        {"weights": b"short"},
        {"masked": 1},
        {"plan": {"epochs": 10**9, "batch": 1, "rate": 0.1}},
        {"plan": {"epochs": 1, "batch": 1, "rate": float("nan")}},
        {"plan": {"epochs": 1, "batch": 1, "rate": 0.1, "run": "rm -rf"}},
        {"more": 1},
        {"masked": True},
        {"boards": {"press-07": bytes(32), "press-08": bytes(31) + b"1"}},
        {"masked": True, "boards": {"press-07": bytes(32)}},
        {"masked": True, "boards": {"press-07": bytes(32), "press-08": bytes(32)}},
    ],
    ids=str,
)
def test_a_signed_order_that_does_not_fit_is_refused(changed: dict[str, object]) -> None:
    """Whoever has the aggregator's key cannot ask for what no plan may hold."""
    payload = {
        "run": 5,
        "round": 2,
        "model": "bearing",
        "weights": bytes(32),
        "plan": {"epochs": 1, "batch": 1, "rate": 0.1},
        "masked": False,
        "issued": 1,
    }
    good = sign(cbor.encode(payload), cbor.encode(["edged.order.1"]), KEY)
    Order.open(good, KEY.public)
    with pytest.raises(FormatError):
        Order.open(sign(cbor.encode(payload | changed), cbor.encode(["edged.order.1"]), KEY), KEY.public)


def test_a_signature_for_another_purpose_is_no_order() -> None:
    signed = sign(cbor.encode({"run": 1}), cbor.encode(["edged.enrol.1"]), KEY)
    with pytest.raises(SignatureError):
        Order.open(signed, KEY.public)


@pytest.mark.parametrize(
    ("changed", "plan", "reason"),
    [
        ({"models": ("pump",)}, PLAN, "federated.models"),
        ({"secure": True}, PLAN, "federated.secure"),
        ({"privacy": Privacy(clip=1.0)}, PLAN, "privacy.clip"),
        ({"privacy": Privacy(clip=1.0)}, Plan(epochs=1, batch=8, rate=0.1, clip=1.5), "privacy.clip"),
        ({"privacy": Privacy(clip=1.0, noise=0.8)}, Plan(epochs=1, batch=8, rate=0.1, clip=1.0, noise=0.5), "noise"),
    ],
    ids=["model", "unmasked", "no-clip", "clip-too-far", "too-little-noise"],
)
def test_what_the_owner_does_not_allow_is_refused(changed: dict[str, object], plan: Plan, reason: str) -> None:
    with pytest.raises(NotAllowedError, match=reason):
        replace(ORDER, plan=plan).check(table(**changed))


def test_an_owner_allows_what_is_within_bounds() -> None:
    plan = Plan(epochs=1, batch=8, rate=0.1, clip=0.9, noise=1.1)
    replace(ORDER, plan=plan, masked=True).check(table(secure=True, privacy=Privacy(clip=1.0, noise=1.0)))


def test_other_weights_than_the_order_was_signed_for_are_refused() -> None:
    ORDER.check_weights(digest(WEIGHTS))
    with pytest.raises(MismatchError):
        ORDER.check_weights(digest([one + 1 for one in WEIGHTS]))


# --- rounds --------------------------------------------------------------------------------------


def test_a_round_is_taken_once_over_restarts_too(tmp_path: Path) -> None:
    path = tmp_path / "f" / "rounds"
    Rounds(path).take(KEY.public, 5, 2)
    for run, number in ((5, 2), (5, 1), (4, 9), (0, 0)):
        with pytest.raises(ReplayError):
            Rounds(path).take(KEY.public, run, number)
    Rounds(path).take(KEY.public, 5, 3)
    Rounds(path).take(KEY.public, 6, 1)
    Rounds(path).take(OTHER.public, 1, 1)  # each aggregator counts by itself


def test_damaged_rounds_are_told_and_not_taken_for_none(tmp_path: Path) -> None:
    path = tmp_path / "rounds"
    path.write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="rounds"):
        Rounds(path)


# --- updates -------------------------------------------------------------------------------------

ABOUT = Round(5, 2, "press-07")


def update(about: Round = ABOUT, signer: PrivateKey = KEY, to: PrivateKey = OTHER) -> bytes:
    return seal_update(WEIGHTS, about, signer, Aead.A256GCM, to.public)


def test_an_update_opens_for_its_aggregator_alone() -> None:
    opened = open_update(update(), ABOUT, KEY.public, OTHER, SHAPES)
    assert all(np.array_equal(a, b) for a, b in zip(opened, WEIGHTS, strict=True))
    with pytest.raises(NotARecipientError):
        open_update(update(), ABOUT, KEY.public, PrivateKey.generate(), SHAPES)


@pytest.mark.parametrize("about", [Round(5, 3, "press-07"), Round(6, 2, "press-07"), Round(5, 2, "press-08")])
def test_an_update_counts_in_its_round_for_its_board_alone(about: Round) -> None:
    with pytest.raises(DecryptionError):
        open_update(update(), about, KEY.public, OTHER, SHAPES)


def test_an_update_that_another_board_signed_is_refused() -> None:
    with pytest.raises(UnknownSignerError):
        open_update(update(signer=PrivateKey.generate()), ABOUT, KEY.public, OTHER, SHAPES)


def test_an_update_of_another_models_shapes_is_refused() -> None:
    with pytest.raises(FormatError):
        open_update(update(), ABOUT, KEY.public, OTHER, [(3, 2), (3,)])


# --- node keys -----------------------------------------------------------------------------------


@pytest.fixture
def board(tmp_path: Path) -> tuple[FileKeystore, Record, bytes]:
    tmp_path.chmod(0o700)
    keystore = FileKeystore.create("file:", tmp_path / "keys", None)
    signer, agreement = keystore.signer.public, keystore.agreement.public
    record = Record(Role.DEVICE, "press-07", signer, agreement, Aead.A256GCM, int(time.time()))
    return keystore, record, record.encode(keystore.signer)


def test_a_node_key_is_sealed_at_rest_and_vouched_for(
    tmp_path: Path, board: tuple[FileKeystore, Record, bytes]
) -> None:
    keystore, record, encoded = board
    path = tmp_path / "node" / "node.key"
    made = NodeRecord.parse(make_node_key(path, record, encoded, keystore))
    key = open_node_key(path, record, keystore)
    assert made.node == key.public
    assert made.device.sign == record.sign
    assert key.scalar() not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert public_pem(key.public) not in private_openssh(key)
    with pytest.raises(OutputError):
        make_node_key(path, record, encoded, keystore)


def test_a_node_key_opens_for_its_board_alone(tmp_path: Path, board: tuple[FileKeystore, Record, bytes]) -> None:
    keystore, record, encoded = board
    path = tmp_path / "node.key"
    make_node_key(path, record, encoded, keystore)
    another = FileKeystore.create("file:", tmp_path / "others", None)
    with pytest.raises(KeystoreError, match=r"node\.key"):
        open_node_key(path, record, another)
    with pytest.raises(KeystoreError):
        open_node_key(path, msgspec.structs.replace(record, id="press-08"), keystore)
    with pytest.raises(KeystoreError) as absent:
        open_node_key(tmp_path / "absent", record, keystore)
    assert "edged federate init" in (absent.value.hint or "")


def test_a_node_record_of_another_board_is_refused(tmp_path: Path, board: tuple[FileKeystore, Record, bytes]) -> None:
    """A board cannot vouch for a node key under another board's record."""
    keystore, record, encoded = board
    other = FileKeystore.create("file:", tmp_path / "others", None)
    theirs = msgspec.structs.replace(record, id="press-08", sign=other.signer.public, ecdh=other.agreement.public)
    mine = make_node_key(tmp_path / "node.key", record, encoded, keystore)
    with pytest.raises(EdgedError):
        NodeRecord.parse(theirs.encode(other.signer) + mine[len(encoded) :])
    with pytest.raises(FormatError):
        NodeRecord.parse(encoded)


# --- what is given away --------------------------------------------------------------------------


def for_ever(function: Callable[[], None]) -> None:
    while True:
        function()


def test_a_budget_lasts_for_so_many_rounds_over_restarts(tmp_path: Path) -> None:
    privacy = Privacy(clip=1.0, noise=1.0, epsilon=6.0)
    plan = Plan(epochs=1, batch=10, rate=0.1, clip=1.0, noise=1.0)
    path = tmp_path / "f" / "budget"

    def take_round() -> None:
        budget = Budget(path, privacy)
        budget.check("bearing", plan, 100)
        budget.spend("bearing", plan.noise, 0.1, 10)

    for _ in range(4):
        take_round()
    with pytest.raises(NotAllowedError, match=r"privacy\.epsilon"):
        for_ever(take_round)
    spent = Budget(path, privacy).spent()["bearing"].epsilon
    assert 0.9 * 6.0 < spent <= 6.0
    Budget(path, privacy).check("pump", plan, 100)  # each model by itself


def test_rounds_without_noise_are_not_counted(tmp_path: Path) -> None:
    budget = Budget(tmp_path / "budget", Privacy())
    budget.check("bearing", PLAN, 100)
    budget.spend("bearing", PLAN.noise, 0.1, 10)
    assert budget.spent() == {}


# --- without Flower ------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [None, "1.40.0", "2.0.0"])
def test_what_needs_flower_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, found: str | None) -> None:
    def version(_: str) -> str:
        if found is None:
            raise importlib.metadata.PackageNotFoundError
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ConfigError) as error:
        need_flower()
    assert "pip install 'edged[federated]'" in (error.value.hint or "")
