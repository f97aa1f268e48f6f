"""The command line: the only place that prints to a person or ends the process.

Each command is in the file of its role and is imported when it is called, so that ``edged --help`` needs nothing but
click, and ``edged run`` no prompt. May import: everything.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Mapping
from types import ModuleType, TracebackType
from typing import Any

import click

from edged import __version__
from edged.base.errors import EdgedError, UsageError

_EX_OSERR = 71
_INTERRUPTED = 130

COMMANDS: Mapping[str, tuple[str, str]] = {
    "keygen": ("keygen", "Make keys of a publisher, operator, hub or sensor."),
    "init": ("board", "Make this board's keys and enrolment record."),
    "install": ("board", "Verify packages and install them on this board."),
    "rollback": ("rollback", "Go back to the version of a model before the newest."),
    "models": ("board", "List the installed packages."),
    "check": ("board", "Validate all that can be validated without starting."),
    "run": ("board", "Run the daemon."),
    "pack": ("publisher", "Sign and seal a model."),
    "grant": ("publisher", "Seal a package to further boards."),
    "inspect": ("inspect", "Show what a package, a model or a record is."),
    "manifest": ("author", "Write a starting manifest for a model."),
    "try": ("author", "Run a model on recorded data, without a broker."),
    "status": ("status", "Show how this board is, and what was set aside."),
    "audit": ("audit", "Show what ran on this board when."),
    "support-bundle": ("support", "Collect what a maintainer needs, without secrets."),
    "keystore": ("keystore", "Try this board's keys, replace them, destroy them."),
    "hub": ("hub", "Open boards' results and republish them at home."),
    "listen": ("listen", "Open sealed results and print them."),
    "send": ("sensor", "Play recorded readings as a sensor."),
    "federate": ("federate", "Learn together with other boards."),
    "aggregator": ("aggregator", "Lead boards that learn together."),
    "demo": ("demo", "Run everything once on this machine."),
}
"""Each command by its name: the module here that holds it as ``NAME_command``, and its line in the list."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called: help and completion know their names without.

    :param lazy: such commands, as :data:`COMMANDS` lists them; others are added as to any group.
    """

    def __init__(self, *arguments: Any, lazy: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names: those of imported commands first."""
        return [*super().list_commands(ctx), *self._lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command to be listed; :meth:`resolve_command` returns the one to be called."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        return click.Command(cmd_name, short_help=self._lazy[cmd_name][1])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first of ``args`` names, imported, and the rest of them."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name in self._lazy:
            command = getattr(_import(f"edged.cli.{self._lazy[name][0]}"), f"{name.replace('-', '_')}_command")
        return name, command, rest


def _import(module: str) -> ModuleType:
    """Import a module without looking for garbage meanwhile, and then never in what it holds: a tenth of the time."""
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.freeze()
        gc.enable()


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"max_content_width": 100})
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
    sys.excepthook = _show_uncaught
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
    """Print an error for a person, or log it to the journal."""
    from edged.base.log import leads_to_journal, log_failure  # noqa: PLC0415  most commands do not fail
    from edged.cli.common import say  # noqa: PLC0415  as above

    if leads_to_journal():
        log_failure(message, kind, hint)
        return
    say(f"edged: error: {message}", err=True)
    if hint:
        say(f"edged: hint: {hint}", err=True)


def _show_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of an error that nobody foresaw: its message may hold anything."""
    import traceback  # noqa: PLC0415  there should be none

    from edged.cli.common import say_text  # noqa: PLC0415  as above

    say_text("".join(traceback.format_exception(kind, error, trace)), err=True)


def _sentence(text: str) -> str:
    """Bring click's sentences to the form of edged's own."""
    text = text.strip().removesuffix(".")
    return text[:1].lower() + text[1:]
