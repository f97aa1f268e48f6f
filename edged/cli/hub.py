"""``edged hub``: open what boards seal, and republish it at home; and its commands init, status and devices."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from edged.base.errors import MissingFileError, StateLockedError
from edged.base.lock import Lock
from edged.cli.common import hub_option, json_option, print_facts, print_json, print_table, say
from edged.config.load import load_hub
from edged.hub.hub_keys import HubKeys
from edged.hub.process import HubProcess
from edged.hub.status import status_path

_RUNTIME = Path("/run/edged-hub/status.json")


@click.group("hub", invoke_without_command=True)
@hub_option
@click.option("--page", is_flag=True, help="Also serve a page for people (default address: 127.0.0.1:8099).")
@click.option("--instance", default="", metavar="NAME", help="A further process that shares the results (hub.share).")
@click.pass_context
def hub_command(context: click.Context, config: Path, instance: str, *, page: bool) -> None:
    """Open what boards seal, and republish it as plain JSON on a local broker, for Home Assistant and others.

    \b
    Example: edged hub --page
    """
    context.obj = config
    if context.invoked_subcommand is None:
        process = HubProcess(load_hub(config), instance, page=page)
        process.run()


@hub_command.command("init", short_help="Make this hub's keys and its record.")
@json_option
@click.pass_obj
def init_command(config: Path, *, as_json: bool) -> None:
    """Make this hub's two keys, and print its record, which boards name in `results.hubs`.

    \b
    Example: edged hub init
    """
    hub = load_hub(config)
    keys = HubKeys(hub.keystore, Path(hub.hub.state))
    record = keys.make(hub.hub.name)
    facts = {"id": record.id, "fingerprint": record.fingerprint, "record": str(keys.record_path)}
    if as_json:
        print_json(facts)
        return
    print_facts(facts)
    say()
    say("Take the record to the boards (results.hubs), and compare the fingerprint there.")


@hub_command.command("status", short_help="Show how the hub is, and what it refused.")
@json_option
@click.pass_obj
def status_command(config: Path, *, as_json: bool) -> None:
    """Show connections, counts, and what was refused lately and why.

    \b
    Example: edged hub status
    """
    running, status = _status(config)
    if as_json:
        print_json({"running": running, **status})
        return
    counts = status["counts"]
    print_facts(
        {
            "hub": f"{status['hub']}, edged {status['version']}",
            "process": "runs" if running else "does not run",
            **{f"upstream {one['name']}": one["state"] for one in status["upstreams"]},
            "local": f"{status['local']['state']}; {status['local']['queued']} messages wait",
            "boards": ", ".join(f"{one['device']} ({one['state']})" for one in status["boards"]) or "none",
            "results": f"{counts['opened']} opened, {counts['repeated']} repeated, {counts['held']} held,"
            f" {counts['dropped']} dropped",
            "refused": _counted(counts["refused"]) or "nothing",
            "messages": f"{counts['heard']}; beside results {_counted(counts['other']) or 'none'}",
            "not enrolled": ", ".join(status["strangers"]) or "none heard",
            "problems": "; ".join(f"{what}: {why}" for what, why in status["problems"].items()) or "none",
        }
    )
    if status["refused_lately"]:
        say()
        say("refused lately:")
        rows = [(_time(one["time"]), one["kind"], one["topic"], one["message"]) for one in status["refused_lately"]]
        print_table(rows[-10:], ("at", "why", "topic", "message"))


@hub_command.command("devices", short_help="List boards: versions, health, last seen, what was refused.")
@json_option
@click.pass_obj
def devices_command(config: Path, *, as_json: bool) -> None:
    """List the boards that are believed.

    \b
    Example: edged hub devices --json
    """
    _, status = _status(config)
    if as_json:
        print_json(status["boards"])
        return
    rows = [
        (
            one["device"],
            one["state"],
            _time(one["last_seen"]),
            ", ".join(f"{model['name']} {_version(model)}" for model in one["models"]) or "-",
            _health(one["report"]),
            one["opened"],
            _counted(one["refused"]) or "-",
            one["fingerprint"],
        )
        for one in status["boards"]
    ]
    print_table(rows, ("board", "state", "last seen", "models", "health", "results", "refused", "fingerprint"))


def _status(config: Path) -> tuple[bool, dict[str, Any]]:
    """Return whether the hub runs, and what it last said of itself."""
    state = Path(load_hub(config).hub.state)
    running = False
    try:
        Lock(state).close()
    except StateLockedError:
        running = True
    for path in (_RUNTIME, status_path(state)):
        with suppress(OSError, ValueError):
            status: dict[str, Any] = json.loads(path.read_text())
            return running, status
    raise MissingFileError(f"{state} holds no status", hint="`edged hub` writes it while it runs")


def _version(model: dict[str, Any]) -> str:
    trial = " (on trial)" if model["trial"] else ""
    waits = f" ({model['installed']} waits)" if model["installed"] > model["version"] else ""
    return f"{model['version']}{trial}{waits}"


def _health(report: dict[str, Any] | None) -> str:
    if report is None:
        return "-"
    degraded = "; ".join(report["degraded"])
    return degraded or f"{report['rate']:.1f}/s" + (f", {report['waiting']} wait" if report["waiting"] else "")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts.items())


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
