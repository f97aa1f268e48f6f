"""Tells a SuperNode or SuperLink that a task is still worked on. Flower's own raises SIGINT where a task was taken."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest
from flwr.supercore.runtime import RuntimeHttpClient


def heartbeat(client: RuntimeHttpClient) -> Callable[[], bool]:
    """Return what :class:`flwr.supercore.heartbeat.HeartbeatSender` calls: true, unless it should try again soon."""

    def send() -> bool:
        try:
            client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except httpx.TransportError:
            return False
        except httpx.HTTPStatusError:
            return True  # the run is over: the reply will find out
        return True

    return send
