"""Filters that say what the inventory and its folders make of the boards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, TypeVar

from ansible.plugins.filter.core import combine
from ansible_collections.edged.fleet.plugins.filter.configuration import sensor_topics
from ansible_collections.edged.fleet.plugins.filter.passwords import broker_password

_Json = TypeVar("_Json", dict[str, Any], list[Any])
_LONGEST = 4096
_NEXT = "-next"
"""Behind a name: the key that will replace it."""


def boards(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return of each host what brokers, hubs and grants want to know: its name as a device, topics, password."""
    return [_board(host, hostvars[host]) for host in hosts]


def _board(host: str, known: Mapping[str, Any]) -> dict[str, Any]:
    device = known.get("edged_device", host)
    config = combine(known.get("edged_config", {}), known.get("edged_host_config", {}), recursive=True)
    secret = known.get("edged_broker_secret", "")
    one = {
        "host": host,
        "device": device,
        "topics": sensor_topics(config),
        "prefix": config.get("results", {}).get("prefix", "edged"),
    }
    if secret:
        one["password"] = broker_password(secret, device, known.get("edged_broker_generation", 1))
    return one


def hubs(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return of each hub's host its name at the broker, and its password."""
    found = []
    for host in hosts:
        known = hostvars[host]
        device = known.get("edged_hub_name", host)
        secret = known.get("edged_hub_broker_secret", known.get("edged_broker_secret", ""))
        one = {"host": host, "device": device}
        if secret:
            one["password"] = broker_password(secret, device, known.get("edged_hub_broker_generation", 1))
        found.append(one)
    return found


def with_records(known: Iterable[dict[str, Any]], files: Iterable[str]) -> list[dict[str, Any]]:
    """Return the boards whose enrolment records are among ``files``."""
    enrolled = {PurePath(file).stem for file in files}
    return [one for one in known if one["device"] in enrolled]


def answers(
    known: Iterable[dict[str, Any]], hostvars: Mapping[str, Any], hub_hosts: Iterable[str]
) -> list[dict[str, Any]]:
    """Return what boards and hubs said of each board: rows for `status_table`.

    All of it is their word, and may be anything.
    """
    seen: dict[str, float] = {}
    for host in hub_hosts:
        for one in _json(hostvars[host].get("edged_hub_devices"), list):
            if isinstance(one, dict) and isinstance(last := one.get("last_seen"), int | float):
                device = str(one.get("device"))
                seen[device] = max(seen.get(device, 0.0), last)
    rows = []
    for one in known:
        answer = hostvars[one["host"]].get("edged_answer")
        row = {"board": one["device"], "last_seen": seen.get(one["device"]), "status": _json(answer, dict)}
        state, _, revision = _said(hostvars[one["host"]].get("edged_revision"), "stdout").partition(" ")
        row["revision"] = revision if state == "installed" else ""
        if answer and not answer.get("unreachable"):
            said = (_said(answer, "stderr") or _said(answer, "msg") or "no answer").strip()
            row["why"] = said.splitlines()[0] if said else "no answer"
        rows.append(row)
    return rows


def _said(answer: Mapping[str, Any] | None, what: str) -> str:
    said = (answer or {}).get(what)
    return said[:_LONGEST] if isinstance(said, str) else ""


def _json(answer: Mapping[str, Any] | None, kind: type[_Json]) -> _Json:
    """Return what a command printed as JSON; nothing for what is no JSON, or of another kind."""
    try:
        said = json.loads((answer or {}).get("stdout") or "null")
    except (RecursionError, TypeError, ValueError):
        return kind()
    return said if isinstance(said, kind) else kind()


def publishers_table(publishers: dict[str, list[str]], files: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return ``[publishers]``: each one that is named, and the key that will replace it where its file is there."""
    there = {PurePath(file).stem for file in files}
    names = {name: models for one, models in publishers.items() for name in (one, one + _NEXT) for models in (models,)}
    return {
        name: {"key": f"/etc/edged/publishers/{name}.pub", "models": models}
        for name, models in names.items()
        if name in there or not name.endswith(_NEXT)
    }


def with_next_sensor_keys(config: dict[str, Any], files: Iterable[str]) -> dict[str, Any]:
    """Return a board's configuration where each sensor's next key is taken, too, if its file is there."""
    there = {PurePath(file).name for file in files}
    if "model" not in config:
        return config
    return {**config, "model": [_with_next(model, there) for model in config["model"]]}


def _with_next(model: dict[str, Any], there: set[str]) -> dict[str, Any]:
    keys = model.get("sensor", [])
    keys = [keys] if isinstance(keys, str) else list(keys)
    following = [str(path) for path in map(_next_path, keys) if path.name in there]
    return {**model, "sensor": keys + following} if following else model


def _next_path(path: str) -> PurePath:
    here = PurePath(path)
    return here.with_name(f"{here.stem}{_NEXT}{here.suffix}")


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "answers": answers,
            "boards": boards,
            "hubs": hubs,
            "with_records": with_records,
            "publishers_table": publishers_table,
            "with_next_sensor_keys": with_next_sensor_keys,
        }
