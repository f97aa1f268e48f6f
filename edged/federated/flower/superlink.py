"""The SuperLink of one aggregator: a child on the loopback that knows the boards which are allowed."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from edged.base import notify
from edged.base.errors import BrokerError
from edged.base.files import PRIVATE_FILE, make_private_directory, write_atomically
from edged.base.lock import Lock
from edged.federated.aggregator import Aggregator
from edged.federated.flower.control import Control
from edged.federated.flower.processes import Child, Secret
from edged.formats.cose.pem import public_pem

_LOG = logging.getLogger(__name__)
_PATIENCE = 60.0
_POLL = 0.1
_LOOK = 2.0
"""Seconds between looks at which boards are allowed."""
_SECRET = 32


@contextmanager
def superlink(aggregator: Aggregator, log: Path | None = None) -> Iterator[tuple[Child, Control]]:
    """Have a SuperLink in the block, with the allowed boards registered.

    :raises BrokerError: it does not come up.
    :raises StateLockedError: one runs on this directory.
    """
    aggregator.record()
    secret = os.urandom(_SECRET)
    with closing(Lock(aggregator.directory)):
        make_private_directory(aggregator.secret_path.parent)
        write_atomically(aggregator.secret_path, [secret], mode=PRIVATE_FILE, replace=True)
        try:
            with Child(
                "flower-superlink", _arguments(aggregator, secret), aggregator.directory / "flower", log
            ) as child:
                control = Control(aggregator.address, aggregator.tls.ca)
                with closing(control):
                    _wait(child, control)
                    register(aggregator, control)
                    yield child, control
        finally:
            aggregator.secret_path.unlink(missing_ok=True)


def serve(aggregator: Aggregator, stop: threading.Event) -> None:
    """Serve until told to stop; boards that are allowed or revoked meanwhile are registered or cut off.

    :raises BrokerError: the SuperLink ended.
    """
    with superlink(aggregator) as (child, control):
        _LOG.info("the SuperLink serves on %s, for %d boards", aggregator.address, len(aggregator.boards()))
        notify.ready()
        while not stop.wait(_LOOK):
            if not child.running:
                raise BrokerError("the SuperLink ended", hint="its own lines above say why")
            register(aggregator, control)
        notify.stopping()


def register(aggregator: Aggregator, control: Control) -> None:
    """Have exactly the allowed boards registered."""
    wanted = {public_pem(record.node): record for record in aggregator.boards().values()}
    known = control.nodes()
    for pem, record in wanted.items():
        if pem not in known:
            control.register(record.node, record.device.id)
            _LOG.info("%s is registered", record.device.id)
    for pem, (node, _) in known.items():
        if pem not in wanted:
            control.unregister(node)
            _LOG.info("node %d is cut off: it is not allowed", node)


def _arguments(aggregator: Aggregator, secret: bytes) -> list[str | Secret]:
    tls = aggregator.tls
    return [
        *("--host", "127.0.0.1", "--port", str(aggregator.config.aggregator.port)),
        *("--ssl-certfile", str(tls.cert), "--ssl-keyfile", str(tls.key), "--ssl-ca-certfile", str(tls.ca)),
        *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
        *("--isolation", "process", "--superexec-auth-secret-file", Secret("runner", secret)),
    ]


def _wait(child: Child, control: Control) -> None:
    until = time.monotonic() + _PATIENCE
    while not control.is_up():
        if not child.running:
            raise BrokerError(f"the SuperLink did not start on {control.address}", hint="is its port free?")
        if time.monotonic() > until:
            raise BrokerError(f"the SuperLink does not answer on {control.address}", hint="see its own lines above")
        time.sleep(_POLL)
