"""Connection options of commands that are no daemon; they are mosquitto_sub's where they mean the same."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edged.base.nothing import nothing
from edged.broker import Broker, BrokerOptions
from edged.cli.common import path_type
from edged.config.secret import read_secret

_Function = TypeVar("_Function", bound=Callable[..., Any])
_PLAIN, _TLS = 1883, 8883


def connection_options(function: _Function) -> _Function:
    """Add the options that :func:`broker_options` takes."""
    for option in (
        click.option("-L", "--url", help="mqtt://host:port, mqtts://host:port or unix:///path; instead of -h and -p."),
        click.option("-h", "--host", default="localhost", show_default=True, help="Broker to connect to."),
        click.option("-p", "--port", type=int, help="Default: 1883, with --cafile 8883."),
        click.option("-u", "--username", help="User name at the broker."),
        click.option("-P", "--pw", "password_file", metavar="FILE", help="File with the password (mode 0600)."),
        click.option("--cafile", type=path_type, help="Certificates that sign the broker's."),
        click.option("--cert", type=path_type, help="This client's certificate."),
        click.option("--key", "tls_key", type=path_type, help="This client's TLS key."),
        click.option("-i", "--id", "client_id", help="Client id at the broker."),
    ):
        function = option(function)
    return function


def connect(options: BrokerOptions) -> Broker:
    """Return a connection that stands. A person waits, and no retry helps a wrong name: the first failure ends it.

    :raises BrokerError: the broker cannot be reached, or refuses.
    """
    broker = Broker(options)
    log_errors, broker.on_error = broker.on_error, nothing  # the caller gets the error raised
    broker.connect()
    while not broker.is_up:
        if broker.last_error is not None:
            broker.close()
            raise broker.last_error
        broker.run_once(1.0)
    broker.on_error = log_errors
    return broker


def broker_options(
    *,
    url: str | None,
    host: str,
    port: int | None,
    username: str | None,
    password_file: str | None,
    cafile: Path | None,
    cert: Path | None,
    tls_key: Path | None,
    client_id: str | None,
) -> BrokerOptions:
    """Return how to connect, from the options of :func:`connection_options`."""
    if url is None:
        url = f"mqtts://{host}:{port or _TLS}" if cafile else f"mqtt://{host}:{port or _PLAIN}"
    return BrokerOptions(
        url=url,
        ca=cafile,
        cert=cert,
        key=tls_key,
        username=username,
        password=read_secret(password_file) if password_file else None,
        client_id=client_id or f"edged-{socket.gethostname()}-{os.getpid()}",
        session_expiry=0,
    )
