"""The adapter to Flower (flwr): the only place that imports it, and an extra in an environment of its own.

Flower carries messages between boards and an aggregator, keeps their connections, and brings strategies and SecAgg+.
It also lets whoever reaches its control interface push Python to boards, and asks home for updates; none of that is
used here: see :mod:`edged.federated.flower.runner` and :mod:`edged.federated.flower.processes`.
"""

from __future__ import annotations

import importlib.metadata

from edged.base.errors import ConfigError

FLOWER = "1.41."
"""The release that this adapter was written and tested for: it stands on parts that other releases move."""


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
