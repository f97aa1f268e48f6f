"""Filters for the passwords of boards and hubs at their broker: one vaulted secret stands for all of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from ansible.errors import AnsibleFilterError

_LEAST = 16
_ITERATIONS = 10_000
"""The passwords are random: iterations only have to be enough that nobody is reminded of a plain hash."""


def broker_password(secret: str, user: str, generation: int = 1) -> str:
    """Return a user's password: who knows one learns nothing of the others, nor of the secret.

    :param generation: counted up to give this user another one.
    """
    if len(secret) < _LEAST:
        raise AnsibleFilterError(
            f"broker_password: the secret has fewer than {_LEAST} characters: openssl rand -hex 32"
        )
    text = f"edged.broker.1/{user}/{int(generation)}"
    return base64.urlsafe_b64encode(hmac.digest(secret.encode(), text.encode(), "sha256")).decode().rstrip("=")


def mosquitto_hash(password: str, user: str) -> str:
    """Return a password as it stands in Mosquitto's file: PBKDF2 with SHA-512.

    The salt is made of user and password, so that a second run writes the same line.
    """
    salt = hmac.digest(password.encode(), f"edged.salt.1/{user}".encode(), "sha256")[:12]
    made = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(made).decode()}"


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"broker_password": broker_password, "mosquitto_hash": mosquitto_hash}
