"""A hub's configuration from an add-on's options and the Supervisor's broker."""
# ruff: noqa: INP001  beside a script

import json
from collections.abc import Mapping
from pathlib import Path

_INGRESS = "172.30.32.2"
"""The Supervisor, in its own network: it hands on what administrators of Home Assistant ask for."""


class WantsMore(Exception):  # noqa: N818  it is no error until somebody ends the program over it
    """Something must be said in the options that nothing else says."""


def hub_toml(
    options: Mapping[str, object], broker: Mapping[str, object], state: Path, secrets: Path, boards: Path
) -> tuple[str, dict[str, str]]:
    """Return the text of ``hub.toml``, and by their names the secrets that it refers to.

    :raises WantsMore: an option is wanted.
    """
    if not options.get("upstream_url"):
        raise WantsMore(
            "upstream_url: name the broker that the boards' results come from, or write a hub.toml of your own"
        )
    upstream = {name: options.get(f"upstream_{name}") for name in ("url", "ca", "username", "password", "prefix")}
    local = {name: options.get(f"local_{name}") for name in ("url", "username", "password")}
    if not local["url"]:
        if not broker:
            raise WantsMore(
                "local_url: no broker add-on runs; start one, or name the broker that gets the opened results"
            )
        scheme = "mqtts" if broker.get("ssl") else "mqtt"
        local["url"] = f"{scheme}://{broker['host']}:{broker['port']}"
        local |= {"username": broker.get("username"), "password": broker.get("password")}
    tables: dict[str, dict[str, object]] = {
        "hub": {"name": "home-assistant", "state": str(state), "boards": str(boards)},
        "upstream.main": upstream,
        "local": local,
        "page": {"address": "0.0.0.0:8099", "proxy": _INGRESS, "token": options.get("page_token")},
    }
    found: dict[str, str] = {}
    text = "# Written at each start; a hub.toml of your own in the add-on's configuration folder takes its place.\n"
    for table, values in tables.items():
        text += f"\n[{table}]\n"
        for name, value in values.items():
            if value and name in {"password", "token"}:
                found[f"{table}-{name}"] = str(value)
                text += f"{name} = {json.dumps(str(secrets / f'{table}-{name}'))}\n"
            elif value:
                text += f"{name} = {json.dumps(value)}\n"  # a JSON string is a TOML string
    return text, found
