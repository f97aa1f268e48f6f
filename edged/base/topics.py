"""MQTT topics and their filters (MQTT 5, section 4.7)."""

from __future__ import annotations


def topic_matches(wanted: str, topic: str) -> bool:
    """Return whether a topic filter (``+``, ``#``) takes a topic. Wildcards at its start leave out ``$`` topics."""
    if topic.startswith("$") != wanted.startswith("$"):
        return False
    levels, filters = topic.split("/"), wanted.split("/")
    if filters[-1] == "#":
        filters.pop()
        levels = levels[: len(filters)]
    return len(levels) == len(filters) and all(
        want in ("+", level) for want, level in zip(filters, levels, strict=True)
    )
