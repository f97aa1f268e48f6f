"""A board's inventory: what is said of models comes back as it was said, in steps of 1,024 bytes, and nothing else is taken."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import FormatError
from edged.config.model import LONGEST_TITLE, MOST_TITLES
from edged.formats.channel import MOST_CHANNELS
from edged.formats.channel.inventory import MOST_LABELS, Inventory, ServedModel
from edged.formats.cose import cbor
from edged.formats.spec.output import LONGEST_LABEL

MODEL = ServedModel("c1", "gearbox", 3, 4, "classifier", labels=("healthy", "broken"), binary={"broken": "problem"})
LEAST = {"channel": "c1", "model": "gearbox", "version": 1, "installed": 1, "kind": "classifier"}

texts = st.text(max_size=20)
models = st.builds(
    ServedModel,
    channel=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True),
    model=texts,
    version=st.integers(0, 2**32 - 1),
    installed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["classifier", "regressor", "anomaly"]),
    trial=st.booleans(),
    labels=st.lists(texts, max_size=4).map(tuple),
    unit=texts,
    name=texts,
    device_class=texts,
    binary=st.dictionaries(texts, texts, max_size=2),
    longest=st.none() | st.floats(0, 1e6),
    sources=st.none() | st.dictionaries(texts, texts, max_size=2),
)
inventories = st.builds(
    Inventory,
    edged=texts,
    heartbeat=st.floats(0.001, 1e6),
    models=st.lists(models, max_size=4, unique_by=lambda one: one.channel).map(tuple),
)


@given(inventories)
def test_what_is_encoded_comes_back_and_its_size_says_little(inventory: Inventory) -> None:
    encoded = inventory.encode()
    assert Inventory.parse(encoded) == inventory
    assert len(encoded) % 1024 == 0


def test_a_label_does_not_show_in_the_size() -> None:
    sizes = {
        len(Inventory("1.0", 30.0, (ServedModel("c1", "m" * length, 1, 1, "regressor"),)).encode())
        for length in range(200)
    }
    assert sizes == {2048} or len(sizes) <= 2


def test_as_many_models_as_a_board_may_serve_fit() -> None:
    many = tuple(ServedModel(f"c{number}", "gearbox", 1, 1, "anomaly") for number in range(MOST_CHANNELS))
    assert Inventory.parse(Inventory("1.0", 30.0, many).encode()).models == many
    too_many = (*many, ServedModel("one-more", "gearbox", 1, 1, "anomaly"))
    with pytest.raises(FormatError):
        Inventory.parse(Inventory("1.0", 30.0, too_many).encode())


def test_as_many_names_as_a_site_may_give_fit_beside_as_many_models() -> None:
    sources = {f"{number:03}" + "s" * 125: "t" * LONGEST_TITLE for number in range(MOST_TITLES)}
    labels = tuple(f"{number:02}" + "l" * (LONGEST_LABEL - 2) for number in range(MOST_LABELS))
    many = [ServedModel(f"c{number}", "gearbox", 1, 1, "anomaly", labels=labels) for number in range(MOST_CHANNELS)]
    many[0] = msgspec.structs.replace(many[0], sources=sources)
    assert Inventory.parse(Inventory("1.0", 30.0, tuple(many)).encode()).models == tuple(many)


def altered(change: dict[Any, Any] | None = None) -> bytes:
    """Return an inventory with other values; None takes a key away."""
    value = {"edged": "1.0", "heartbeat": 30.0, "models": [LEAST], "pad": bytes(10), **(change or {})}
    return cbor.encode({name: one for name, one in value.items() if one is not None})


def model(**change: Any) -> list[dict[str, Any]]:
    return [{name: one for name, one in {**LEAST, **change}.items() if one is not None}]


@pytest.mark.parametrize(
    "change", [{"more": [1]}, {"models": [{**LEAST, "more": {"a": 1}}]}], ids=["itself", "a model"]
)
def test_keys_that_this_release_does_not_know_are_passed_over(change: dict[str, Any]) -> None:
    assert Inventory.parse(altered(change)) == Inventory.parse(altered())


def test_the_least_is_taken() -> None:
    assert Inventory.parse(altered()).models == (ServedModel("c1", "gearbox", 1, 1, "classifier"),)


@pytest.mark.parametrize(
    "change",
    [
        {"edged": None},
        {"heartbeat": None},
        {"models": None},
        {"pad": None},
        {"edged": 1},
        {"heartbeat": 0.0},
        {"heartbeat": -1.0},
        {"heartbeat": float("inf")},
        {"heartbeat": float("nan")},
        {"heartbeat": "30"},
        {"pad": b"\x00\x01"},
        {"models": {}},
        {1: 1},
        {"models": model(channel="health")},
        {"models": model(channel=None)},
        {"models": model(channel="a/b")},
        {"models": model(channel="+")},
        {"models": model(channel="")},
        {"models": model(channel="c" * 65)},
        {"models": model(version="1")},
        {"models": model(version=True)},
        {"models": model(kind="oracle")},
        {"models": model(trial=1)},
        {"models": model(labels="healthy")},
        {"models": model(labels=[1])},
        {"models": model(binary={"broken": 1})},
        {"models": model(longest="1 s")},
        {"models": [*model(), *model()]},
    ],
)
def test_anything_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Inventory.parse(altered(change))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        Inventory.parse(data)


def test_cut_short_at_every_byte() -> None:
    encoded = Inventory("1.0", 30.0, (MODEL,)).encode()
    for end in range(0, len(encoded), 7):
        with pytest.raises(FormatError):
            Inventory.parse(encoded[:end])


def test_padding_goes_before_a_broker_that_takes_less_gets_nothing() -> None:
    inventory = Inventory("1.0", 30.0, (MODEL,))
    padded = inventory.encode()
    assert len(padded) % 1024 == 0
    assert inventory.encode(len(padded)) == padded
    short = inventory.encode(len(padded) - 1)
    assert len(short) < len(padded)
    assert Inventory.parse(short) == inventory
