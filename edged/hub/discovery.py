"""Home Assistant's device-based MQTT discovery: one device a board, its components from what the board serves.

Pure functions: names in, JSON values out. What Home Assistant accepts was tried on 2025.4 (docs/hub.md says what
follows for a manifest). Every component states its ``unique_id``; entity ids are left to Home Assistant.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from edged.formats.channel.inventory import Inventory, ServedModel
from edged.formats.home_assistant import BINARY, RESERVED, measured, shown_label
from edged.hub.topics import Place, Topics

_LEAST_EXPIRY, _EXPIRY_FACTOR = 30.0, 3.0


def config_topic(prefix: str, device: str) -> str:
    """Return the topic of the configuration of a board's device.

    :param prefix: Home Assistant's own ``discovery_prefix``.
    """
    return f"{prefix}/device/edged_{device}/config"


def device_of_config(prefix: str, topic: str) -> str:
    """Return the board whose configuration is on a topic; empty for any other topic."""
    start, end = config_topic(prefix, "\n").split("\n")
    return topic[len(start) : -len(end)] if topic.startswith(start) and topic.endswith(end) else ""


def config(
    device: str, fingerprint: str, inventory: Inventory, places: Iterable[Place], topics: Topics, release: str
) -> dict[str, Any]:
    """Return the configuration of a board's device.

    :param places: the places that its results come from, of models that it serves.
    :param release: of this hub.
    """
    models = {model.channel: model for model in inventory.models}
    components = {**_board(device, inventory, topics)}
    for place in places:
        components |= _results(device, models[place.channel], place, inventory.title(*place), topics)
    for model in inventory.models:
        components |= _update(device, model, inventory.title(model.channel), topics)
    return {
        "device": {
            "identifiers": [f"edged_{device}"],
            "name": device,
            "manufacturer": "edged",
            "model": "edged board",
            "serial_number": fingerprint,
            "sw_version": inventory.edged,
        },
        "origin": {"name": "edged hub", "sw_version": release},
        "availability": [{"topic": topics.hub}, {"topic": topics.availability}],
        "availability_mode": "all",
        "components": components,
    }


def removal(before: bytes, after: bytes) -> bytes | None:
    """Return the message that removes the components which one configuration has and the next has no more.

    None if there are none. Home Assistant removes a component that has nothing but its platform.

    :param before: the configuration of before; empty if there was none.
    :param after: the next configuration; empty removes the whole device.
    """
    if not before or not after:
        return after if before else None
    was, now = (json.loads(one) for one in (before, after))
    for key in was["components"].keys() - now["components"].keys():
        now["components"][key] = {"platform": was["components"][key]["platform"]}
    return None if now == json.loads(after) else json.dumps(now).encode()


def union(older: bytes, newer: bytes) -> bytes:
    """Return the newer of two configurations with the components of both; ``older`` may be empty."""
    if not older:
        return newer
    both = json.loads(newer)
    both["components"] = {**json.loads(older)["components"], **both["components"]}
    return json.dumps(both).encode()


def _expiry(seconds: float | None) -> dict[str, int]:
    """Return the time after which a state without a new message counts as unknown, if it is known."""
    return {} if seconds is None else {"expire_after": round(max(_EXPIRY_FACTOR * seconds, seconds + _LEAST_EXPIRY))}


def _results(device: str, model: ServedModel, place: Place, name: str, topics: Topics) -> dict[str, Any]:
    key = f"edged_{_part(device)}_{_part(place.channel)}"
    if place.source:
        key += f"_of_{_slug(place.source)}"
    common = {"state_topic": topics.result(place), **_expiry(model.longest)}
    components: dict[str, Any] = {}
    if model.kind == "regressor":
        components[f"{key}_value"] = {
            "platform": "sensor",
            "unique_id": f"{key}_value",
            "name": name,
            "value_template": _template("value"),
            **common,
            **_value(model),
        }
    else:
        components[f"{key}_label"] = {
            "platform": "sensor",
            "unique_id": f"{key}_label",
            "name": name,
            "value_template": _LABEL,
            **common,
            **({"device_class": "enum", "options": list(map(shown_label, model.labels))} if model.labels else {}),
        }
        components[f"{key}_score"] = {
            "platform": "sensor",
            "unique_id": f"{key}_score",
            "name": f"{name} {'error' if model.kind == 'anomaly' else 'score'}",
            "value_template": _template("score"),
            "state_class": "measurement",
            **common,
            **_score(model),
        }
    for label, device_class in model.binary.items():
        component = f"{key}_is_{_slug(label)}"  # Home Assistant goes by this key: another label is another entity
        components[component] = {
            "platform": "binary_sensor",
            "unique_id": component,
            "name": f"{name} {label}",
            "value_template": _holds(label),
            **({"device_class": device_class} if device_class in BINARY else {}),
            **common,
        }
    return components


def _update(device: str, model: ServedModel, name: str, topics: Topics) -> dict[str, Any]:
    key = f"edged_{_part(device)}_{_part(model.channel)}_update"
    shown = {
        "platform": "update",
        "unique_id": key,
        "name": f"{name} model",
        "state_topic": topics.update(model.channel),
        "entity_category": "diagnostic",
    }
    return {key: shown}


def _value(model: ServedModel) -> dict[str, str]:
    """Return unit and classes of a value; a device class that does not go with its unit is left out."""
    unit, device_class = measured(model.unit, model.device_class, model.state_class)
    shown = {"state_class": model.state_class, "unit_of_measurement": unit, "device_class": device_class}
    return {key: text for key, text in shown.items() if text}


def _score(model: ServedModel) -> dict[str, Any]:
    if model.kind == "anomaly":
        return {"suggested_display_precision": 4}
    return {
        "unit_of_measurement": "%",
        "value_template": "{{ (value_json.score * 100) | round(2) if value_json.score is number else None }}",
        "suggested_display_precision": 1,
    }


def _board(device: str, inventory: Inventory, topics: Topics) -> dict[str, Any]:
    common = {
        "platform": "sensor",
        "state_topic": topics.health,
        "entity_category": "diagnostic",
        **_expiry(inventory.heartbeat),
    }
    key = f"edged_{_part(device)}"
    return {
        f"{key}_rate": {
            **common,
            "unique_id": f"{key}_rate",
            "name": "Readings",
            "unit_of_measurement": "1/s",
            "state_class": "measurement",
            "suggested_display_precision": 1,
            "value_template": _template("rate"),
        },
        f"{key}_temperature": {
            **common,
            "unique_id": f"{key}_temperature",
            "name": "Temperature",
            "device_class": "temperature",
            "unit_of_measurement": "°C",
            "state_class": "measurement",
            "value_template": _template("temperature"),
        },
        f"{key}_waiting": {
            **common,
            "unique_id": f"{key}_waiting",
            "name": "Results waiting",
            "state_class": "measurement",
            "value_template": _template("waiting"),
        },
        f"{key}_degraded": {
            **common,
            "platform": "binary_sensor",
            "unique_id": f"{key}_degraded",
            "name": "Degraded",
            "device_class": "problem",
            "value_template": "{{ 'ON' if value_json.degraded else 'OFF' }}",
        },
    }


def update_state(model: ServedModel, newest: int) -> dict[str, str]:
    """Return the state of a model's update entity.

    :param newest: the newest version that anybody here knows of.
    """
    return {"installed_version": str(model.version), "latest_version": str(max(model.version, newest))}


def _part(name: str) -> str:
    """Return a name as part of an id: `a_b` with `c` and `a` with `b_c` are two."""
    return name.replace("_", "__")


def _slug(label: str) -> str:
    """Return a label as part of an id: each byte that is no small letter or digit in hex."""
    plain = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
    return "".join(chr(byte) if byte in plain else f"-{byte:02x}" for byte in label.encode())


def _template(key: str) -> str:
    """Return a template for a key that may be absent or null: the state is unknown then."""
    return f"{{{{ value_json.{key} | default(None) }}}}"


_LABEL = (
    "{% set label = value_json.label | default('', true) | trim %}"
    "{{ None if value_json.label is not defined else "
    f"'label ' ~ label if label in {json.dumps(RESERVED)} else label }}}}"
)
"""A template that does as :func:`shown_label`; Home Assistant strips what it returns."""


def _holds(label: str) -> str:
    """Return a template that is ON if a label holds; the label's JSON is a literal of the template's language, too."""
    literal = json.dumps(label, ensure_ascii=False)
    return f"{{{{ None if value_json.label is not defined else 'ON' if value_json.label == {literal} else 'OFF' }}}}"
