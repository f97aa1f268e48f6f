"""The whole way, all of it real: board, broker in between, hub, broker at home, Home Assistant; and what breaks on it.

The tests share one house, and each leaves it as it found it. The last two look at what all the others have left: Home
Assistant's log, and everything that the broker in between carried. Times are printed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edged.formats.home_assistant import BINARY, UNITS
from edged.hub.topics import Topics
from support.broker import Client, spin
from support.homeassistant import cannot, device_classes
from support.house import BOARD, BROKEN, ENTITIES, GEARBOX, HYDRAULICS, LABEL, House, is_gone, is_unknown, knows_novelty

pytestmark = pytest.mark.skipif(bool(cannot()), reason=cannot())

EXPECTED_TROUBLE = (
    "[homeassistant.bootstrap] Skipping pip installation",  # so it was told
    "[aiohttp_fast_zlib] zlib_ng and isal are not available",
    "[homeassistant.components.camera.img_util] Error loading libturbojpeg",
    "[homeassistant.components.mqtt.client] Error returned from MQTT server: The connection was lost",  # it was killed
    "[homeassistant.components.mqtt.client] Failed to connect to MQTT server",
)


def report(what: str, seconds: float) -> None:
    """Print a figure; `pytest -s` shows it."""
    print(f"\n{what}: {seconds:.1f} s", end="")


@pytest.fixture(scope="module")
def house(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    path = tmp_path_factory.mktemp("house")
    path.chmod(0o700)
    with ExitStack() as stack:
        house = House(path, models, stack)
        house.start_hub()
        report("hub started, all shown after", house.wait(house.is_right_at_last))
        yield house


def test_entities_appear_with_names_classes_units_and_states(house: House) -> None:
    house.wait(lambda states: house.is_right(states) and all(entity in states for entity, *_ in ENTITIES.values()))
    registry = house.assistant.entities()
    states = house.assistant.states()
    prefix = f"edged_{BOARD}_"
    assert {unique.removeprefix(prefix): entry["entity_id"] for unique, entry in registry.items()} == {
        unique: entity for unique, (entity, *_) in ENTITIES.items()
    }
    for entity, name, device_class, unit in ENTITIES.values():
        attributes = states[entity]["attributes"]
        assert attributes["friendly_name"] == f"{BOARD} {name}"
        assert (attributes.get("device_class"), attributes.get("unit_of_measurement")) == (device_class, unit)
    assert states[LABEL]["attributes"]["options"] == ["healthy", "broken"]
    assert 50 < float(states[ENTITIES["c1_score"][0]]["state"]) <= 100
    assert 0 < float(states[ENTITIES["c3_score"][0]]["state"]) < 1
    update = states[ENTITIES["c1_update"][0]]
    assert (update["state"], update["attributes"]["installed_version"]) == ("off", str(house.versions["gearbox"]))
    (device,) = house.assistant.devices()
    assert device["name"] == BOARD


def test_a_killed_daemon_makes_its_board_unavailable_until_it_is_back(house: House) -> None:
    house.daemon.process.kill()
    report("daemon killed, unavailable after", house.wait(is_gone))
    house.restart_daemon()
    house.send()
    report("daemon back, right after", house.wait(house.is_right))


def test_a_killed_hub_makes_all_unavailable_until_it_is_back(house: House) -> None:
    house.kill_hub()
    report("hub killed, unavailable after", house.wait(is_gone))
    house.send()
    house.start_hub()
    report("hub started, right after", house.wait(house.is_right))


def test_the_right_value_is_there_after_the_local_broker_was_killed_and_has_lost_all(house: House) -> None:
    house.wait_for_birth()
    house.local.kill()
    report("local broker killed, unavailable after", house.wait(is_gone))
    house.send()
    house.local.start()
    report("local broker back, right after", house.wait(house.is_right))


def test_the_right_value_is_there_after_the_broker_in_between_was_killed(house: House) -> None:
    house.upstream.kill()
    house.upstream.start()
    spin(house.tap, house.home, until=lambda: house.tap.hears)
    house.send()
    report("upstream broker back, right after", house.wait(house.is_right))


def test_home_assistant_shows_the_right_value_after_its_restart(house: House) -> None:
    house.assistant.stop()
    house.send()
    house.assistant.start()
    report("Home Assistant runs, right after", house.wait(house.is_right))


def test_a_model_that_is_updated_keeps_its_entities_and_their_states(house: House) -> None:
    """An update changes the configuration, upon which Home Assistant forgets states that expire."""
    before = house.assistant.entities().keys()
    version = house.pack(HYDRAULICS, "feedback.tflite")
    house.daemon.reload()
    update = ENTITIES["c2_update"][0]
    house.wait(lambda states: states[update]["attributes"].get("installed_version") == version)
    report("model updated, right after", house.wait(house.is_right))
    assert house.assistant.entities().keys() == before


def test_another_label_of_interest_gets_an_entity_of_its_own(house: House) -> None:
    """Home Assistant goes by the component's key: under a key that stays it would show one label as the other."""
    healthy = BROKEN.replace("broken", "healthy")
    house.pack(GEARBOX.replace('broken = "problem"', 'healthy = "running"'), "gearbox/dnn.tflite")
    house.daemon.reload()
    house.wait(lambda states: healthy in states and BROKEN not in states)
    house.send()
    house.wait(lambda states: states[LABEL]["state"] == house.label)
    house.wait(lambda states: states[healthy]["state"] == ("on" if house.label == "healthy" else "off"))
    house.pack(GEARBOX, "gearbox/dnn.tflite")
    house.daemon.reload()
    house.wait(house.is_right_at_last)


@pytest.mark.parametrize("away", ["nobody", "hub", "Home Assistant"])
def test_a_model_that_is_served_no_more_takes_its_entities_along(house: House, away: str) -> None:
    house.wait_for_birth()
    with house.without_novelty():
        if away == "hub":
            house.kill_hub()
        elif away == "Home Assistant":
            house.assistant.stop()
        house.restart_daemon()
        if away == "hub":
            house.start_hub()
        elif away == "Home Assistant":
            house.wait_for_configuration(lambda payload: b"novelty" not in payload)
            house.assistant.start()
        report(
            f"model taken out, {away} away, entities gone after", house.wait(lambda states: not knows_novelty(states))
        )


@pytest.mark.parametrize("away", ["nobody", "Home Assistant", "hub and Home Assistant"])
def test_a_removed_board_disappears_and_appears_when_it_is_back(house: House, away: str) -> None:
    """Home Assistant knows its entities from a registry of its own, and nothing retained tells that they are gone."""
    house.wait_for_birth()
    if away != "nobody":
        house.assistant.stop()
    if away == "hub and Home Assistant":
        house.kill_hub()
    with house.without_record():
        if away == "hub and Home Assistant":
            house.start_hub()
        if away != "nobody":
            house.wait_for_configuration(lambda payload: not payload)
            house.assistant.start()
        report(f"board removed, {away} away, device gone after", house.wait(is_unknown))
        assert house.assistant.devices() == []


def test_units_and_classes_are_home_assistants_own() -> None:
    classes = device_classes()
    assert {name: units - set(classes["units"].get(name, ())) for name, units in UNITS.items()} == {
        name: set() for name in UNITS
    }
    assert set(classes["binary"]) >= BINARY


def test_home_assistant_has_nothing_to_complain_about(house: House) -> None:
    trouble = [line for line in house.assistant.trouble() if not any(known in line for known in EXPECTED_TROUBLE)]
    assert trouble == []


def test_the_broker_in_between_carried_nothing_that_can_be_read(house: House) -> None:
    """No label, name, score or value as text or as number, no reading; the same search finds what is at home."""
    for _ in range(6):
        house.send()
        house.wait(house.is_right)
    between, at_home = _carried(house.tap), _carried(house.home)
    told = _numbers(house.home)
    words = [
        "healthy",
        "broken",
        "known",
        "unknown",
        "gearbox",
        "novelty",
        "hydraulics",
        "Gearbox of the press",
        "Left pump",
        "pressure",
    ]
    texts = [*(word.encode() for word in words), *(text for text, _ in told)]

    assert len(told) > 10
    assert [text for text in texts if text not in at_home] == []
    assert [text for text in texts if text in between] == []
    assert [number for _, number in told if any(form in between for form in _encoded(number))] == []
    assert [row for reading in house.readings for row in _rows(reading) if row in between] == []
    for channel in ("c1", "c2", "c3"):
        sizes = [len(one.payload) for one in house.tap.deliveries if one.topic == f"edged/{BOARD}/{channel}"]
        assert len(sizes) > 5
        assert len(set(sizes)) == 1


def _carried(client: Client) -> bytes:
    """Return all topics and payloads that a broker carried."""
    return b"\n".join(one.topic.encode() + b" " + one.payload for one in client.deliveries)


def _numbers(home: Client) -> set[tuple[bytes, float]]:
    """Return scores and values of all results, as they stand in JSON and as numbers; those of few digits left out."""
    found: set[tuple[bytes, float]] = set()
    for delivery in home.deliveries:
        place = Topics.of("edged-hub", BOARD).place(delivery.topic)
        if delivery.payload and place is not None:
            result = json.loads(delivery.payload)
            numbers = [*result.get("scores", ()), *(result[key] for key in ("score", "value") if key in result)]
            found |= {(json.dumps(number).removesuffix(".0").encode(), number) for number in numbers}
    return {(text, number) for text, number in found if len(text) > 5}


def _encoded(number: float) -> tuple[bytes, ...]:
    """Return a number as binary formats hold it. Four bytes alone may be found by chance: CBOR's head goes with them."""
    return b"\xfa" + struct.pack(">f", number), struct.pack(">d", number), struct.pack("<d", number)


def _rows(reading: bytes) -> Iterator[bytes]:
    """Return each row of a window of four channels."""
    return (reading[start : start + 16] for start in range(0, len(reading) - 15, 16))
