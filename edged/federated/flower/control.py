"""The SuperLink's control interface, by loopback: which boards are registered, and the start of a run.

Whoever reaches this interface can register boards and push apps; Flower asks for no key there. It stays on the
loopback, and boards come in through a proxy that lets nothing but :data:`FLEET` through.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest, UnregisterNodeRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from edged.base.errors import BrokerError, KeystoreError
from edged.federated.flower import fab
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
"""What boards ask of a SuperLink; ``register-node`` and ``unregister-node`` are for boards without authentication."""

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
        """Let go of the connection."""
        self._client.close()

    def is_up(self) -> bool:
        """Tell whether the SuperLink serves."""
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

    def start_run(self, archive: bytes = fab.app()) -> int:
        """Start a run of edged's own app, and return its number at Flower."""
        with _wrapped(self.address):
            answer = self._client.StartRun(StartRunRequest(fab=Fab(hash_str=fab.digest(), content=archive)))
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
    """Wrap what goes wrong on the way to a SuperLink."""
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
