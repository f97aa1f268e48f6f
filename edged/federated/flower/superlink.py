"""The SuperLink of one aggregator: a child on the loopback that knows the allowed boards, and its control interface.

Whoever reaches the control interface can register boards and push apps; Flower asks for no key there. It stays on the
loopback, and boards come in through a proxy that lets nothing but :data:`FLEET` through.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest, UnregisterNodeRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from edged.base import notify
from edged.base.errors import BrokerError, KeystoreError
from edged.base.files import PRIVATE_FILE, make_private_directory, write_atomically
from edged.base.lock import Lock
from edged.federated.aggregator import Aggregator
from edged.federated.flower import protocol
from edged.federated.flower.processes import Child, Secret
from edged.formats.cose.keys import PublicKey
from edged.formats.cose.pem import public_pem

FLEET = tuple(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "confirm-message-received",
        "deactivate-node",
        "get-fab",
        "get-run",
        "pull-messages",
        "pull-object",
        "push-messages",
        "push-object",
        "send-node-heartbeat",
    )
)
"""Paths that boards use at a SuperLink; boards without authentication would also use ``register-node``."""

_PROTECTED = frozenset({"/flwr.proto.Runtime/AcquireTask"})
_TIMEOUT = 2.0


class Control:
    """One SuperLink's control interface.

    :param address: ``HOST:PORT``, on the loopback.
    :param ca: who vouches for its certificate.
    """

    def __init__(self, address: str, ca: Path) -> None:
        self.address = address
        self._ca = ca
        self._client = ControlHttpClient.from_server_address(
            address, insecure=False, root_certificates=ca.read_bytes(), interceptors=[]
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def is_up(self) -> bool:
        """Return True if the SuperLink serves."""
        context = ssl.create_default_context(cafile=self._ca)
        try:
            with urllib.request.urlopen(f"https://{self.address}/health", context=context, timeout=_TIMEOUT):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def nodes(self) -> dict[bytes, tuple[int, str]]:
        """Return number and state of every registered node, by its public key in PEM."""
        with _wrapped(self.address):
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        # those that were unregistered stay in the list
        return {bytes(one.public_key): (one.node_id, one.status) for one in found if one.status != "unregistered"}

    def register(self, node: PublicKey, name: str) -> int:
        """Register a board's node key, unless it is, and return the number that Flower gives it."""
        pem = public_pem(node)
        if pem in (known := self.nodes()):
            return known[pem][0]
        with _wrapped(self.address):
            return int(self._client.RegisterNode(RegisterNodeRequest(public_key=pem, name=name)).node_id)

    def unregister(self, number: int) -> None:
        """Take a node out: the board is cut off at once.

        :param number: that Flower gave it.
        """
        with _wrapped(self.address):
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=number))

    def start_run(self, archive: bytes = protocol.app()) -> int:
        """Start a run of edged's own app, and return its number at Flower."""
        with _wrapped(self.address):
            answer = self._client.StartRun(StartRunRequest(fab=Fab(hash_str=protocol.digest(), content=archive)))
        if not answer.run_id:
            raise BrokerError(f"the SuperLink at {self.address} did not start a run", hint="its own log says why")
        return int(answer.run_id)

    def acquire(self, secret: bytes) -> str | None:
        """Take the aggregator's own part of a run, and return the token for it; None where none waits.

        :param secret: that the SuperLink was started with.
        """
        signing = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=_PROTECTED)
        client = RuntimeHttpClient.from_server_address(
            self.address,
            insecure=False,
            root_certificates=self._ca.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="edged"), signing],
        )
        try:
            with _wrapped(self.address):
                found = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
                return found.token or None
        finally:
            client.close()


@contextmanager
def _wrapped(address: str) -> Iterator[None]:
    """Turn failures of the connection to a SuperLink into edged's own errors."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise KeystoreError(
                f"the SuperLink at {address} was started with another secret", hint="restart `edged aggregator serve`"
            ) from error
        raise BrokerError(f"the SuperLink at {address} refuses: {error.response.text[:200]}") from error
    except httpx.HTTPError as error:
        raise BrokerError(
            f"the SuperLink at {address} cannot be reached: {error}", hint="does `edged aggregator serve` run?"
        ) from error


_LOG = logging.getLogger(__name__)
_PATIENCE = 60.0
_POLL = 0.1
_LOOK = 2.0
"""Seconds between looks at which boards are allowed."""
_SECRET = 32


@contextmanager
def superlink(aggregator: Aggregator, log: Path | None = None) -> Iterator[tuple[Child, Control]]:
    """Run a SuperLink during the block, with the allowed boards registered.

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
    """Serve until ``stop`` is set; boards that are allowed or revoked meanwhile are registered or cut off.

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
    """Register the allowed boards, and no others."""
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
