"""The command line: the only place that prints to a person or ends the process.

Each command stands in the file of its role and is imported only when it is called, so that ``edged --help`` needs no
numpy and ``edged run`` no prompt. May import: everything.
"""

from __future__ import annotations

import importlib
import sys

import click

from edged import __version__
from edged.base.errors import EdgedError, UsageError

_EX_OSERR = 71
_INTERRUPTED = 130

_COMMANDS = {
    "keygen": "keys",
    "init": "board",
    "install": "board",
    "rollback": "rollback",
    "models": "board",
    "check": "board",
    "run": "board",
    "pack": "publisher",
    "grant": "publisher",
    "inspect": "inspect",
    "manifest": "model",
    "try": "trial",
    "status": "status",
    "audit": "audit",
    "support-bundle": "support",
    "keystore": "keystore",
    "hub": "hub",
    "listen": "listen",
    "send": "sensor",
    "federate": "federate",
    "aggregator": "aggregator",
    "demo": "demo",
}


class _Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"edged.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command


@click.group(cls=_Lazy, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="edged", message="%(prog)s %(version)s")
def cli() -> None:
    """Encrypted models on IoT boards: sealed at the publisher, opened only in RAM, answered sealed over MQTT.

    \b
    publisher   keygen publisher, manifest, pack, grant, inspect, try
    board       init, install, rollback, models, check, run, status, audit, support-bundle, keystore
    sensor      keygen sensor, send
    hub         hub, keygen hub, listen
    aggregator  aggregator; boards learn together: federate
    everything  demo
    """


def main() -> None:
    """Run the command line and end the process with a code from sysexits.h."""
    try:
        code = cli(prog_name="edged", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(UsageError.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "edged"
        fail(UsageError(_sentence(error.format_message()), hint=f"`{command} --help` shows how"))
    except click.ClickException as error:
        fail(UsageError(_sentence(error.format_message())))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    except EdgedError as error:
        fail(error)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; there is nobody to tell
        sys.exit(0)
    except OSError as error:
        _say(f"{error.filename or 'the system'}: {error.strerror}", type(error).__name__)
        sys.exit(_EX_OSERR)


def fail(error: EdgedError) -> None:
    """Print an error and its hint, and end the process."""
    _say(error.message, type(error).__name__, error.hint)
    sys.exit(error.exit_code)


def _say(message: str, kind: str, hint: str | None = None) -> None:
    """Tell a person, or the journal, what went wrong."""
    from edged.base.log import leads_to_journal, log_failure  # noqa: PLC0415  most commands do not fail

    if leads_to_journal():
        log_failure(message, kind, hint)
        return
    click.echo(f"edged: error: {message}", err=True)
    if hint:
        click.echo(f"edged: hint: {hint}", err=True)


def _sentence(text: str) -> str:
    """Bring click's sentences to the form of edged's own."""
    text = text.strip().removesuffix(".")
    return text[:1].lower() + text[1:]
