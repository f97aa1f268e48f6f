"""Faults of a link in words that say what to do, for people who see that a board is degraded."""

from __future__ import annotations

import math
import time

from edged.broker.limits import BrokerLimits

_SESSION_SECONDS, _RIVAL_SECONDS = 3600.0, 60.0


class Faults:
    """Faults that show between connections.

    :ivar session_lost_at: when the broker last did not have the session of this client (monotonic).
    :ivar rival_at: when another client last seemed to use this client's id.
    """

    def __init__(self, client_id: str) -> None:
        self.session_lost_at = self.rival_at = -math.inf
        self._client_id = client_id

    def describe(self, limits: BrokerLimits) -> dict[str, str]:
        """Return each fault, by the part of the link that it concerns.

        :param limits: of the present connection.
        """
        now = time.monotonic()
        found = {}
        if not limits.retains:
            found["retained messages"] = (
                "the broker retains no messages: hubs that start later find no announcement; let it retain them "
                "(Mosquitto: retain_available)"
            )
        if not limits.most_qos:
            found["QoS"] = "the broker takes QoS 0 only: messages may be lost; let it take QoS 1 (Mosquitto: max_qos)"
        if now - self.session_lost_at < _SESSION_SECONDS:
            found["session"] = (
                "the broker did not keep this client's session: messages that waited there are lost; let it keep "
                "sessions on disk, and for long enough (Mosquitto: persistence, persistent_client_expiration)"
            )
        if now - self.rival_at < _RIVAL_SECONDS:
            found["client id"] = (
                f"another client seems to use the client id {self._client_id!r}; give each board a name and keys of "
                "its own"
            )
        return found
