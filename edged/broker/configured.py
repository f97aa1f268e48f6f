"""From a configuration's table to the way to a broker."""

from __future__ import annotations

from pathlib import Path

from edged.base.units import parse_duration
from edged.broker.options import BrokerOptions, Message
from edged.config.board import BrokerTable
from edged.config.secret import read_secret, secret_path


def configured(table: BrokerTable, client_id: str, will: Message | None = None) -> BrokerOptions:
    """Return how to reach the broker that a table names.

    :raises MissingFileError: a secret that it refers to is absent.
    :raises PermissionsError: others may read it.
    """
    return BrokerOptions(
        url=table.url,
        session_expiry=round(parse_duration(table.session)),
        client_id=client_id,
        ca=None if table.ca is None else Path(table.ca),
        cert=None if table.cert is None else Path(table.cert),
        key=None if table.key is None else secret_path(table.key),
        username=table.username,
        password=None if table.password is None else read_secret(table.password),
        will=will,
    )
