"""What Home Assistant is told of a board: complete, in its own words, and of stable ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.broker import Broker
from edged.config.hub import HomeAssistantTable
from edged.formats.channel.inventory import Inventory, ServedModel
from edged.formats.home_assistant import BINARY, UNITS
from edged.hub.boards import BoardView
from edged.hub.discovery import (
    config,
    config_topic,
    device_of_config,
    removal,
    update_state,
)
from edged.hub.sinks import AcceptedResult
from edged.hub.sinks.retained import RetainedState
from edged.hub.state import HubState
from edged.hub.topics import Place, Topics
from support.parties import NOW, Board, Hub, hear, seal
from support.serving import FakeBroker

TOPICS = Topics("edged-hub/status", "edged-hub/press-07")
CLASSIFIER = ServedModel(
    "c1", "gearbox", 3, 4, "classifier", labels=("healthy", "broken"), name="Gearbox", binary={"broken": "problem"},
    longest=60.0,
)  # fmt: skip
REGRESSOR = ServedModel("c2", "oil", 1, 1, "regressor", unit="Pa", device_class="pressure")
ANOMALY = ServedModel("c3", "novelty", 1, 1, "anomaly", labels=("known", "novel"))

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,5}", fullmatch=True)
labels = st.text(min_size=1, max_size=5)


def told(*models: ServedModel, device: str = "press-07", sources: Sequence[str] = ("",)) -> dict[str, Any]:
    places = [Place(model.channel, source) for model in models for source in sources]
    return config(device, "ab12", Inventory("1.0", 30.0, models), places, TOPICS, "2.0")


def components(*models: ServedModel, **more: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = told(*models, **more)["components"]
    return found


def test_topic_is_the_boards_own() -> None:
    assert config_topic("homeassistant", "press-07") == "homeassistant/device/edged_press-07/config"


def test_device_origin_and_availability_of_hub_and_board() -> None:
    found = told(CLASSIFIER)
    assert found["device"]["identifiers"] == ["edged_press-07"]
    assert (found["device"]["sw_version"], found["device"]["serial_number"]) == ("1.0", "ab12")
    assert found["origin"] == {"name": "edged hub", "sw_version": "2.0"}
    assert found["availability"] == [{"topic": "edged-hub/status"}, {"topic": "edged-hub/press-07/availability"}]
    assert found["availability_mode"] == "all"


def test_every_component_has_what_home_assistant_wants_and_nothing_that_it_dropped() -> None:
    for component in components(CLASSIFIER, REGRESSOR, ANOMALY).values():
        assert {"platform", "unique_id", "name", "state_topic"} <= set(component)
        assert not {"object_id", "default_entity_id"} & set(component)
    json.dumps(told(CLASSIFIER, REGRESSOR, ANOMALY), allow_nan=False)


def test_classifier_is_an_enum_a_percentage_and_a_binary_sensor_for_each_label_of_interest() -> None:
    found = components(CLASSIFIER)
    label, score, broken = (found[f"edged_press-07_c1_{key}"] for key in ("label", "score", "is_broken"))
    assert (label["device_class"], label["options"], label["name"]) == ("enum", ["healthy", "broken"], "Gearbox")
    assert "state_class" not in label
    assert (score["unit_of_measurement"], score["state_class"]) == ("%", "measurement")
    assert (broken["platform"], broken["device_class"], broken["name"]) == (
        "binary_sensor",
        "problem",
        "Gearbox broken",
    )
    assert broken["unique_id"] == "edged_press-07_c1_is_broken"
    assert {one["state_topic"] for one in (label, score, broken)} == {"edged-hub/press-07/c1"}


def test_labels_that_are_too_many_to_name_make_no_enum() -> None:
    label = components(ServedModel("c1", "species", 1, 1, "classifier"))["edged_press-07_c1_label"]
    assert not {"device_class", "options"} & set(label)


def test_anomaly_detector_shows_its_error_without_a_unit() -> None:
    score = components(ANOMALY)["edged_press-07_c3_score"]
    assert score["name"] == "novelty error"
    assert "unit_of_measurement" not in score


def test_regressor_has_unit_and_classes() -> None:
    value = components(REGRESSOR)["edged_press-07_c2_value"]
    assert (value["unit_of_measurement"], value["device_class"], value["state_class"]) == (
        "Pa",
        "pressure",
        "measurement",
    )


@pytest.mark.parametrize(
    ("device_class", "unit", "state_class", "kept"),
    [
        ("temperature", "°C", "measurement", True),
        ("temperature", "C", "measurement", False),
        ("pressure", "", "measurement", False),
        ("timestamp", "s", "measurement", False),
        ("date", "", "measurement", False),
        ("nonsense", "Pa", "measurement", False),
        ("energy", "kWh", "total_increasing", True),
        ("energy", "kWh", "measurement", False),
        ("power", "W", "total", False),
        ("distance", "m", "measurement", True),
        ("distance", "m", "total", True),
    ],
)
def test_device_class_that_does_not_go_with_unit_or_state_class_is_left_out(
    device_class: str, unit: str, state_class: str, kept: bool
) -> None:
    model = ServedModel("c1", "m", 1, 1, "regressor", unit=unit, device_class=device_class, state_class=state_class)
    value = components(model)["edged_press-07_c1_value"]
    assert value.get("device_class") == (device_class if kept else None)
    assert value["state_class"] == state_class
    assert value.get("unit_of_measurement", "") == unit


def test_device_class_of_a_label_that_is_none_of_a_binary_sensor_is_left_out() -> None:
    model = ServedModel("c1", "m", 1, 1, "classifier", labels=("a", "b"), binary={"a": "temperature", "b": "motion"})
    found = components(model)
    assert "device_class" not in found["edged_press-07_c1_is_a"]
    assert found["edged_press-07_c1_is_b"]["device_class"] == "motion"
    assert "temperature" in UNITS
    assert "temperature" not in BINARY


@pytest.mark.parametrize("micro", ["\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}"])
@pytest.mark.parametrize(("device_class", "unit"), [("duration", "{}s"), ("pm25", "{}g/m³"), ("voltage", "{}V")])
def test_either_micro_sign_is_home_assistants(device_class: str, unit: str, micro: str) -> None:
    model = ServedModel("c1", "m", 1, 1, "regressor", unit=unit.format(micro), device_class=device_class)
    value = components(model)["edged_press-07_c1_value"]
    assert value["device_class"] == device_class
    assert value["unit_of_measurement"] in UNITS[device_class]


def test_label_that_home_assistant_takes_for_no_label_is_shown_otherwise() -> None:
    model = ServedModel("c1", "m", 1, 1, "classifier", labels=("yes", "unknown", "None", " no "))
    assert components(model)["edged_press-07_c1_label"]["options"] == ["yes", "label unknown", "label None", "no"]


# --- several sources, several models -----------------------------------------------------------


def test_each_source_has_entities_of_its_own_by_the_name_that_the_site_gives_it() -> None:
    model = msgspec.structs.replace(CLASSIFIER, sources={"hall/1": "Press 1"})
    found = components(model, sources=("hall/1", "hall/2"))
    labels = {key: one for key, one in found.items() if key.endswith("_label")}
    assert [(one["name"], one["state_topic"]) for one in labels.values()] == [
        ("Gearbox Press 1", "edged-hub/press-07/c1/source/hall%2F1"),
        ("Gearbox hall/2", "edged-hub/press-07/c1/source/hall%2F2"),
    ]
    assert sum("_is_broken" in key for key in found) == 2
    assert [one["name"] for key, one in found.items() if key.endswith("_update")] == ["Gearbox model"]


@given(st.lists(labels, unique=True, max_size=4), names)
def test_no_two_sources_share_an_entity_or_a_topic(sources: list[str], channel: str) -> None:
    model = ServedModel(channel, "m", 1, 1, "regressor", sources={})
    values = [one for one in components(model, sources=sources).values() if one["unique_id"].endswith("_value")]
    assert len({one["unique_id"] for one in values}) == len({one["state_topic"] for one in values}) == len(sources)


@given(names, labels)
def test_place_comes_back_from_its_topic(channel: str, source: str) -> None:
    topics = Topics.of("edged-hub", "press-07")
    for place in (Place(channel), Place(channel, source)):
        topic = topics.result(place)
        assert topics.place(topic) == place
        assert not {"+", "#"} & set(topic)
        assert topic.count("/") == (4 if place.source else 2)
        assert topics.place(topics.late(place)) is topics.place(topics.update(channel)) is None


def test_two_models_of_one_name_are_told_apart_by_their_channels() -> None:
    twins = [msgspec.structs.replace(CLASSIFIER, channel=channel) for channel in ("left", "right")]
    found = components(*twins, REGRESSOR)
    assert [one["name"] for key, one in found.items() if key.endswith(("_label", "_value"))] == [
        "Gearbox left",
        "Gearbox right",
        "oil",
    ]


@given(st.none() | st.floats(0.001, 1e6))
def test_states_expire_later_than_the_next_is_due_or_not_at_all(longest: float | None) -> None:
    model = ServedModel("c1", "m", 1, 1, "regressor", longest=longest)
    value = components(model)["edged_press-07_c1_value"]
    if longest is None:
        assert "expire_after" not in value
    else:
        assert value["expire_after"] >= longest + 29
        assert isinstance(value["expire_after"], int)


def test_update_entity_shows_the_newest_version_that_anybody_knows() -> None:
    assert update_state(CLASSIFIER, 4) == {"installed_version": "3", "latest_version": "4"}
    assert update_state(CLASSIFIER, 0) == {"installed_version": "3", "latest_version": "3"}
    assert components(CLASSIFIER)["edged_press-07_c1_update"]["state_topic"] == "edged-hub/press-07/c1/update"


def test_components_that_are_gone_are_named_with_their_platform_alone() -> None:
    before, after = (json.dumps(told(*models)).encode() for models in ((CLASSIFIER, REGRESSOR), (REGRESSOR,)))
    found = json.loads(removal(before, after) or b"")["components"]
    assert found["edged_press-07_c1_label"] == {"platform": "sensor"}
    assert found["edged_press-07_c1_is_broken"] == {"platform": "binary_sensor"}
    assert found == {**{key: found[key] for key in components(CLASSIFIER)}, **components(REGRESSOR)}


def test_where_no_component_is_gone_there_is_nothing_to_remove() -> None:
    before, after = (json.dumps(told(*models)).encode() for models in ((REGRESSOR,), (CLASSIFIER, REGRESSOR)))
    assert (removal(before, after), removal(b"", after), removal(before, b"")) == (None, None, b"")


@given(names, names)
def test_a_configurations_topic_names_its_board_and_no_other_topic_does(prefix: str, device: str) -> None:
    assert device_of_config(prefix, config_topic(prefix, device)) == device
    assert device_of_config(prefix, f"edged-hub/{device}/config") == ""


@given(st.sets(st.tuples(names, names), min_size=2, max_size=4), st.sets(labels, max_size=3))
def test_unique_ids_are_unique_over_all_boards(boards: set[tuple[str, str]], of_interest: set[str]) -> None:
    devices: dict[str, list[ServedModel]] = {}
    for device, channel in boards:
        binary = dict.fromkeys(of_interest, "problem")
        devices.setdefault(device, []).append(ServedModel(channel, "m", 1, 1, "classifier", binary=binary))
    ids = [
        component["unique_id"]
        for device, models in devices.items()
        for component in components(*models, device=device).values()
    ]
    assert len(set(ids)) == len(ids)


def test_a_board_and_a_channel_whose_names_run_together_are_told_from_another_pair() -> None:
    one = components(ServedModel("b_c", "m", 1, 1, "regressor"), device="a")
    other = components(ServedModel("c", "m", 1, 1, "regressor"), device="a_b")
    assert not set(one) & set(other)


@given(labels)
def test_a_label_stands_in_its_template_as_a_literal(label: str) -> None:
    model = ServedModel("c1", "m", 1, 1, "classifier", binary={label: "problem"})
    (template,) = (one["value_template"] for key, one in components(model).items() if "_is_" in key)
    start = template.index("value_json.label == ") + len("value_json.label == ")
    assert json.JSONDecoder().raw_decode(template, start)[0] == label


def test_a_channel_that_no_inventory_names_is_published_and_not_discovered(tmp_path: Path) -> None:
    """Whoever has the channel key can make up channels: Home Assistant hears of none of them."""
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    local, view = FakeBroker(), BoardView(board.record)
    with closing(HubState(tmp_path)) as state:
        home = HomeAssistantTable()
        retained = RetainedState(cast("Broker", local), state, {board.name: view}, "edged-hub", home, lambda _model: 0)
        retained.open = True
        hear(receiver, announcer)

        def takes(channel: str) -> None:
            opened = receiver.open(f"edged/{board.name}/{channel}", seal(announcer, channel), NOW)
            retained.deliver(AcceptedResult(opened, Place(channel), b"{}", newest=True))
            retained.update(view)
            retained.turn(NOW)

        takes("c1")
        view.inventory = Inventory("1.0", 30.0, (ServedModel("c1", "gearbox", 3, 3, "classifier"),))
        takes("c1")
        takes("made-up")
        configurations = [payload for topic, payload in local.published if topic.endswith("/config")]
        assert [b"_c1_" in one for one in configurations] == [True]
        assert not any(b"made-up" in payload for payload in configurations)
