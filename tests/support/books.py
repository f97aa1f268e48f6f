"""A hub's books: each message of an enrolled board ends in one count, or still waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edged.hub.status import BOOKS


def check_books(status: Mapping[str, Any]) -> None:
    """Check that the counts of a hub's status add up, in all and for each board."""
    for counts in (status["counts"], *status["boards"]):
        ends = [counts[end] for end in ("opened", "repeated", "held")]
        many = [count for ends in ("refused", "other") for count in counts[ends].values()]
        assert counts["heard"] == sum(ends + many), counts


def check_numbers(numbers: Mapping[tuple[str, ...], float]) -> None:
    """Check that a hub's numbers for Prometheus add up."""
    heard, *ends = [sum(value for name, value in numbers.items() if name[0] == family.name) for family in BOOKS]
    assert heard == sum(ends), numbers


def is_the_same(status: Mapping[str, Any], numbers: Mapping[tuple[str, ...], float]) -> bool:
    """Return True if a hub says the same in its status and for Prometheus: at rest it does, some seconds later."""
    counts = status["counts"]
    shown = {name: value for name, value in numbers.items() if name[0] in {family.name for family in BOOKS}}
    return shown == {
        ("edged_hub_messages_total",): counts["heard"],
        **{("edged_hub_results_total", one["device"]): one["opened"] for one in status["boards"]},
        ("edged_hub_repeated_total",): counts["repeated"],
        **{("edged_hub_refused_total", kind): count for kind, count in counts["refused"].items()},
        **{("edged_hub_other_total", kind): count for kind, count in counts["other"].items()},
        ("edged_hub_held_messages",): counts["held"],
    }
