"""``edged aggregator``: lead boards that learn together: keys, boards, and the server that they connect to."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from edged.base.errors import BrokerError
from edged.base.files import write_atomically
from edged.base.log import set_up_logging
from edged.cli import LazyGroup
from edged.cli.common import aggregator_option, json_option, path_type, print_facts, print_json, print_table, say
from edged.config.aggregator import TEMPLATE, AggregatorConfig
from edged.config.board import host_name
from edged.config.load import load_aggregator
from edged.federated.aggregator import Aggregator
from edged.federated.flower import prepare

_CONFIG_MODE = 0o644


@click.group("aggregator", cls=LazyGroup, lazy={"train": ("training", "Lead a training of so many rounds.")})
def aggregator_command() -> None:
    """Lead boards that learn together: see docs/federated.md."""


@aggregator_command.command("init", short_help="Make the aggregator's keys, record and configuration.")
@aggregator_option
@click.option("--name", help="Stands in the record, where there is no configuration yet (default: this machine's).")
@click.option("-o", "--output", type=path_type, help="Also write the record here.")
@json_option
def init_command(config: Path, name: str | None, output: Path | None, *, as_json: bool) -> None:
    """Make this aggregator's keys and its record, which boards name in `federated.record`.

    Where there is no configuration yet, it is written too.

    \b
    Example: edged aggregator init -o aggregator.pub
    """
    if not config.exists():
        template = TEMPLATE.format(name=name or host_name()).encode()
        write_atomically(config, [template], mode=_CONFIG_MODE, replace=False)
    aggregator = Aggregator(load_aggregator(config))
    aggregator.make_directory()
    with aggregator.as_owner():
        record = aggregator.make()
        encoded = aggregator.record_path.read_bytes()
    if output is not None:
        write_atomically(output, [encoded], mode=_CONFIG_MODE, replace=True)
    facts = {
        "id": record.id,
        "fingerprint": record.fingerprint,
        "record": str(output or aggregator.record_path),
        "configuration": str(config),
    }
    if as_json:
        print_json(facts)
        return
    print_facts(facts)
    say()
    say("Take the record to the boards (federated.record), and compare the fingerprint there.")


@aggregator_command.command("allow", short_help="Let boards connect and take part.")
@click.argument("records", nargs=-1, required=True, type=path_type, metavar="FILE.node...")
@click.option("--replace", is_flag=True, help="Also a board whose keys changed without its old key's signature.")
@aggregator_option
def allow_command(records: tuple[Path, ...], config: Path, *, replace: bool) -> None:
    """Let boards connect and take part; a server that runs takes them over within seconds.

    \b
    Example: edged aggregator allow press-07.node press-08.node
    """
    aggregator = Aggregator(load_aggregator(config))
    for path in records:
        content = path.absolute()
        with aggregator.as_owner():
            record = aggregator.allow(content, replace=replace)
        say(f"allowed {record.device.id}  {record.device.fingerprint}")


@aggregator_command.command("revoke", short_help="Cut boards off.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@aggregator_option
def revoke_command(names: tuple[str, ...], config: Path) -> None:
    """Cut boards off; a server that runs does it within seconds.

    \b
    Example: edged aggregator revoke press-07
    """
    aggregator = Aggregator(load_aggregator(config))
    for name in names:
        with aggregator.as_owner():
            aggregator.revoke(name)
        say(f"revoked {name}")


@aggregator_command.command("serve", short_help="Run the server that boards connect to.")
@aggregator_option
def serve_command(config: Path) -> None:
    """Run Flower's SuperLink on this machine's loopback, for the boards that are allowed; they come through the proxy.

    \b
    Example: edged aggregator serve
    """
    configured: AggregatorConfig = load_aggregator(config)
    set_up_logging(configured.log.level)
    prepare()
    from edged.federated.flower.superlink import serve  # noqa: PLC0415  an extra

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    aggregator = Aggregator(configured)
    with aggregator.as_owner():
        serve(aggregator, stop)


@aggregator_command.command("status", short_help="List the boards that are allowed, and which are connected.")
@aggregator_option
@json_option
def status_command(config: Path, *, as_json: bool) -> None:
    """List the boards that are allowed, and which are connected.

    \b
    Example: edged aggregator status --json
    """
    aggregator = Aggregator(load_aggregator(config))
    prepare()
    from edged.federated.flower.superlink import Control  # noqa: PLC0415  an extra
    from edged.formats.cose.pem import public_pem  # noqa: PLC0415  for this command alone

    with aggregator.as_owner():
        record, boards, last = aggregator.record(), aggregator.boards(), aggregator.last_run()
        control = Control(aggregator.address, aggregator.tls.ca)
        try:
            nodes, serving = control.nodes(), True
        except BrokerError:
            nodes, serving = {}, False
        finally:
            control.close()
    states = {name: nodes.get(public_pem(one.node), (0, "not registered"))[1] for name, one in boards.items()}
    if as_json:
        found = {name: {"fingerprint": one.device.fingerprint, "state": states[name]} for name, one in boards.items()}
        print_json({"name": record.id, "serving": serving, "last_run": last, "boards": found})
        return
    print_facts(
        {
            "aggregator": f"{record.id}  {record.fingerprint}",
            "server": f"serves on {aggregator.address}" if serving else "does not run: `edged aggregator serve`",
            "last run": last or "none",
            "boards": f"{len(boards)} allowed, {sum(state == 'online' for state in states.values())} connected",
        }
    )
    if boards:
        say()
        rows = [(name, states[name], one.device.fingerprint) for name, one in boards.items()]
        print_table(rows, ("board", "state", "fingerprint"))
