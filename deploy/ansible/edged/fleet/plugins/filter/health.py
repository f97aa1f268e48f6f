"""Filters that judge what `edged status --json` and `edged check --json` say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ansible_collections.edged.fleet.plugins.plugin_utils.words import plain

_UNTRIED = "model "
_WIDEST = 200
"""Characters of a cell."""


def obstacles(findings: list[dict[str, Any]], *, without_packages: bool = False) -> list[str]:
    """Return what `edged check` found to stand in the way, each with its way out.

    :param without_packages: a model that has no package yet is none.
    """
    found = []
    for one in findings:
        if one["ok"] or (without_packages and one["check"].startswith(_UNTRIED) and one["kind"] == "MissingFileError"):
            continue
        hint = f" ({one['hint']})" if one.get("hint") else ""
        found.append(plain(f"{one['check']}: {one['detail']}{hint}"))
    return found


def unproven(after: dict[str, Any], before: dict[str, Any], want: dict[str, Any]) -> list[str]:
    """Return why a board has not proved what was rolled out to it; nothing if it has.

    :param after: `status` of edged and `unit` of systemd at the end of the soak time; ``before``: at its beginning.
    :param want: `name` and `version` of a model, or `edged`, the version of the program; `results`: whether readings
        must bring some.
    """
    status, unit = after["status"], after["unit"]
    if not status["running"]:
        return ["the daemon does not run"]
    why = []
    if unit["InvocationID"] != before["unit"]["InvocationID"] or unit["NRestarts"] != before["unit"]["NRestarts"]:
        why.append("the daemon was started again")
    if "name" in want:
        why += _of_model(status, want["name"], int(want["version"]), _advance(after, before, "messages"))
    elif _reported(status, "version") != want["edged"]:
        why.append(f"edged {_reported(status, 'version')} runs, not {want['edged']}")
    why += [one for one in status["degraded"] if one not in before["status"]["degraded"]]
    if want["results"] and _advance(after, before, "messages") and not _advance(after, before, "results"):
        why.append("readings came, and no result")
    if dropped := _advance(after, before, "dropped"):
        why.append(f"{dropped} results were dropped")
    return why


def _of_model(status: dict[str, Any], name: str, version: int, messages: int) -> list[str]:
    tables = [one for one in status["models"] if one["name"] == name]
    if not tables:
        return [f"no [[model]] uses {name}"]
    for table in tables:
        for rejected in table["rejected"]:
            if rejected["version"] == version:
                return [f"{name} {version} failed: {rejected['why']}"]
    for table in tables:
        if table["serving"] != version:
            return [f"channel {table['channel']} is served by {name} {table['serving']}, not {version}"]
        if table["on_trial"] and messages:
            return [f"{name} {version} is still on trial after {messages} readings: a longer soak time would tell"]
    return []


def _advance(after: dict[str, Any], before: dict[str, Any], what: str) -> int:
    return int(_reported(after["status"], what)) - int(_reported(before["status"], what))


def _reported(status: dict[str, Any], what: str) -> Any:  # noqa: ANN401  numbers and text
    return (status.get("reported") or {}).get(what, 0)


def settled(status: dict[str, Any], want: dict[str, Any]) -> bool:
    """Return whether it is decided if a board serves what was rolled out to it."""
    if not status["running"]:
        return False
    if "edged" in want:
        return bool(_reported(status, "version") == want["edged"])
    tables = [one for one in status["models"] if one["name"] == want["name"]]
    version = int(want["version"])
    return all(
        one["serving"] == version or version in {rejected["version"] for rejected in one["rejected"]} for one in tables
    )


def serves(status: dict[str, Any]) -> dict[str, Any]:
    """Return which version serves each channel."""
    return {one["channel"]: one["serving"] for one in status["models"]}


def has_newest(status: dict[str, Any], want: dict[str, Any]) -> bool:
    """Return whether what was rolled out is what the board would serve: it has not given it up by itself."""
    version = int(want["version"])
    return any(
        one["newest"] == version and version not in {rejected["version"] for rejected in one["rejected"]}
        for one in status["models"]
        if one["name"] == want["name"]
    )


def no_way_back(status: dict[str, Any], name: str) -> str:
    """Return why a board could not go back if the next version of a model fails; nothing if it could.

    The first version of a model replaces nothing: there is nothing to go back to, and nothing to lose.
    """
    for table in status["models"]:
        if table["name"] == name and table["newest"] is not None and table["good"] is None:
            return (
                f"{name} {int(table['newest'])} has not been through its trial there: there is nothing to go back to if"
                " the next version fails; let readings come first, or say -e edged_rollout_without_return=true"
            )
    return ""


def told(reasons: dict[str, list[str]]) -> str:
    """Return which boards failed and why, as a sentence."""
    return "; ".join(f"{board}: {', '.join(map(plain, why))}" for board, why in sorted(reasons.items()))


def status_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table of boards.

    :param rows: `board`, and what is known of it: `status`, `revision` of the Debian package, and `last_seen`, when a
        hub last heard of it.
    """
    head = ("board", "edged", "health", "models", "results", "last result", "last heard")
    cells = [head, *(tuple(plain(cell, _WIDEST) for cell in _row(one)) for one in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    """Return a board's cells; an answer that makes no sense costs its own board its row, and no other."""
    heard = _moment(one.get("last_seen"))
    if not one.get("status"):
        return one["board"], one.get("revision") or "-", one.get("why", "cannot be reached"), "-", "-", "-", heard
    try:
        return (one["board"], one.get("revision") or str(one["status"]["version"]), *_cells(one["status"]), heard)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return one["board"], one.get("revision") or "-", "ITS ANSWER MAKES NO SENSE", "-", "-", "-", heard


def _cells(status: dict[str, Any]) -> tuple[str, str, str, str]:
    health = "; ".join(status["degraded"]) or "well" if status["running"] else "DOES NOT RUN"
    models = ", ".join(_served(table) for table in status["models"]) or "-"
    return health, models, str(_reported(status, "results")), _moment(_reported(status, "last_result"))


def _moment(seconds: object) -> str:
    if not isinstance(seconds, int | float) or not seconds:
        return "-"
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds")[:19]
    except (OverflowError, ValueError, OSError):
        return "-"


def _served(table: dict[str, Any]) -> str:
    failed = "".join(f", {one['version']} failed" for one in table["rejected"])
    return f"{table['name']} {table['serving'] or 'none'}{' on trial' if table['on_trial'] else ''}{failed}"


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "obstacles": obstacles,
            "unproven": unproven,
            "settled": settled,
            "serves": serves,
            "has_newest": has_newest,
            "no_way_back": no_way_back,
            "told": told,
            "status_table": status_table,
        }
