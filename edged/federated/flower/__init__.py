"""The adapter to Flower (flwr): the only place that imports it, and an extra in an environment of its own.

Flower carries messages between boards and an aggregator, keeps their connections, and brings strategies and SecAgg+.
It also lets whoever reaches its control interface push Python to boards, and asks home for updates; none of that is
used here: see :mod:`edged.federated.flower.runner` and :mod:`edged.federated.flower.processes`.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
from collections.abc import Mapping

from edged.base.errors import ConfigError

FLOWER = "1.41."
"""The release that this adapter was written and tested for: it stands on parts that other releases move."""

SWITCHES: Mapping[str, str] = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "UV_OFFLINE": "1",  # what would install dependencies, should anything ask for it all the same
    "UV_NO_INDEX": "1",
    "PIP_NO_INDEX": "1",
}
"""Everything in Flower that talks to others than the two ends, turned off."""


def prepare() -> None:
    """Check that Flower is installed, and turn off its traffic and its log lines. Call it before Flower is imported.

    :raises ConfigError: Flower is not installed.
    """
    need_flower()
    quiet()
    hush()


def need_flower() -> None:
    """Check that Flower is installed, in a release that this adapter knows.

    :raises ConfigError: it is not.
    """
    hint = "the package edged-federated, or pip install 'edged[federated]' in an environment of its own"
    try:
        found = importlib.metadata.version("flwr")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError("federated learning needs Flower, which is not installed", hint=hint) from None
    if not found.startswith(FLOWER):
        raise ConfigError(f"federated learning needs Flower {FLOWER}*, and {found} is installed", hint=hint)


def quiet() -> None:
    """Turn :data:`SWITCHES` off in this process. Flower reads them when it is imported: call it before."""
    os.environ.update(SWITCHES)


def hush() -> None:
    """Leave out the lines that Flower writes for every message. It sets its own level when it is imported."""
    for name in ("flwr", "httpx"):  # a line for every request
        logging.getLogger(name).setLevel(logging.WARNING)
