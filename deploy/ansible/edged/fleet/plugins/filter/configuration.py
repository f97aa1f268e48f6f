"""Filters that write and compare configurations, and take from them what brokers and units need."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from typing import Any
from urllib.parse import urlsplit

from ansible.errors import AnsibleFilterError

DOCUMENTATION = """
name: to_toml
short_description: Write a mapping as TOML
description:
  - The same mapping gives the same text, whatever the order of its keys was.
  - What TOML cannot say (null, keys that are no text) is refused, with its place.
positional: _input
options:
  _input:
    description: Keys and values; lists of mappings become arrays of tables.
    type: dict
    required: true
"""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_INTEGERS = range(-(2**63), 2**63)


def to_toml(tables: dict[str, Any]) -> str:
    """Return ``tables`` as TOML: plain keys first, then tables, each group in the order of its names."""
    if not isinstance(tables, dict):
        raise AnsibleFilterError(f"to_toml: a mapping is wanted, not {type(tables).__name__}")
    return "\n".join(_table(tables, ())).strip() + "\n"


def _table(table: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    for key in table:
        if not isinstance(key, str):
            raise AnsibleFilterError(f"to_toml: {_dotted(path)}: the key {key!r} is no text: put it in quotes")
    lines, below = [], []
    for key, value in sorted(table.items()):
        inner = (*path, key)
        if isinstance(value, dict):
            below += ["", f"[{_dotted(inner)}]", *_table(value, inner)]
        elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            for one in value:
                below += ["", f"[[{_dotted(inner)}]]", *_table(one, inner)]
        else:
            lines.append(f"{_key(key)} = {_value(value, inner)}")
    return lines + below


def _value(value: object, path: tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if value not in _INTEGERS:
            raise AnsibleFilterError(f"to_toml: {_dotted(path)}: {value} has more than 64 bits")
        return str(value)
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, str):
        return f'"{"".join(_character(one, path) for one in value)}"'
    if isinstance(value, list):
        return f"[{', '.join(_value(one, path) for one in value)}]"
    if isinstance(value, dict):
        inside = (f"{_key(key)} = {_value(one, (*path, key))}" for key, one in sorted(value.items()))
        return f"{{ {', '.join(inside)} }}"
    raise AnsibleFilterError(f"to_toml: {_dotted(path)}: TOML has no {type(value).__name__}")


def _character(one: str, path: tuple[str, ...]) -> str:
    if one in _ESCAPES:
        return _ESCAPES[one]
    if ord(one) < ord(" ") or one == "\x7f":
        return f"\\u{ord(one):04x}"
    if "\ud800" <= one <= "\udfff":
        raise AnsibleFilterError(f"to_toml: {_dotted(path)}: not Unicode text")
    return one


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key, (key,))


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(map(_key, path))


def from_toml(text: str) -> dict[str, Any]:
    """Return what a TOML text says; nothing for a text that is none."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def sensor_topics(config: dict[str, Any]) -> list[str]:
    """Return the topic filters that a board's models read, each once."""
    topics: set[str] = set()
    for model in config.get("model", []):
        topics |= {model["topic"]} if "topic" in model else set()
        topics |= set(model.get("topics", {}).values())
    return sorted(topics)


def outside_addresses(url: str) -> list[str]:
    """Return the address in a broker's URL if it lies outside what the units allow by themselves."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return []
    return [] if address.is_private or address.is_link_local else [str(address)]


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "to_toml": to_toml,
            "from_toml": from_toml,
            "sensor_topics": sensor_topics,
            "outside_addresses": outside_addresses,
        }
