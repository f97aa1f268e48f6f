"""``edged send``: play recorded readings as a sensor would send them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np

from edged.base.errors import BrokerError, ReadingShapeError
from edged.base.log import set_up_logging
from edged.broker import Broker
from edged.cli.common import path_type, say
from edged.cli.mqtt import broker_options, connect, connection_options
from edged.formats.channel.reading import ReadingSealer
from edged.formats.readings import FORMATS, Format
from edged.keystore.records import read_sensor_key
from edged.model.reading import encode_reading
from edged.model.samples import Samples, read_pictures, read_samples

_IN_FLIGHT = 500
_PATIENCE = 30.0
"""Seconds to wait for the broker's last acknowledgements."""


@click.command("send")
@click.argument("source", type=path_type)
@click.option("-t", "--topic", required=True, help="Topic to send to.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(get_args(Format)),
    default="json",
    show_default=True,
    help="The board's `format` for this topic.",
)
@click.option(
    "--each", type=click.Choice(["row", "window"]), default="row", show_default=True, help="What one message holds."
)
@click.option("--names", help="Channel names, separated by commas, where the file has none: a1,a2,a3,a4.")
@click.option("--array", help="Array of samples in an .npz.")
@click.option("--rate", type=float, help="Messages a second (default: as fast as the broker takes them).")
@click.option("--seal", "key", type=path_type, help="Seal each reading with this sensor's key.")
@click.option("-q", "--qos", type=click.IntRange(0, 1), default=1, show_default=True)
@connection_options
def send_command(
    source: Path,
    topic: str,
    format_: Format,
    each: str,
    names: str | None,
    array: str | None,
    rate: float | None,
    key: Path | None,
    qos: int,
    **connection: Any,
) -> None:
    """Play a CSV, NPZ or JSON-lines file as a sensor, or a picture, or a directory of them (--format png, jpeg, raw).

    \b
    Example: edged send windows.npz --array raw_windows --names a1,a2,a3,a4 \\
               -t factory/press-07/vibration --rate 1000 --seal press-07.key
    """
    set_up_logging("warning")
    if FORMATS[format_].is_picture:
        messages = read_pictures(source)
    else:
        samples = read_samples(source, array=array)
        channels = tuple(names.split(",")) if names else samples.names
        messages = list(_messages(samples, each, format_, channels))
    sealer = ReadingSealer(read_sensor_key(key), topic) if key else None
    broker = connect(broker_options(**connection))
    waiting: set[int] = set()
    broker.on_delivered = lambda token, _taken: waiting.discard(token)
    started = time.monotonic()
    try:
        with click.progressbar(messages, label=topic, hidden=len(messages) < _IN_FLIGHT) as bar:
            for number, message in enumerate(bar):
                _wait(broker, waiting, most=_IN_FLIGHT, until=started + number / rate if rate else 0.0)
                waiting.add(broker.publish(topic, sealer.seal(message) if sealer else message, qos=qos))
        _wait(broker, waiting, most=0, until=0.0)
    finally:
        broker.close()
    took = time.monotonic() - started
    say(f"{len(messages)} messages in {took:.2f} s, {len(messages) / took:.0f} a second", err=True)


def _messages(samples: Samples, each: str, format_: str, names: tuple[str, ...] | None) -> Iterator[bytes]:
    values = samples.values
    if each == "row":
        for row in values.reshape(-1, values.shape[-1]):
            yield encode_reading(row, format_, names)
    elif values.ndim > 2:  # noqa: PLR2004  windows of rows of channels
        for window in values:
            yield encode_reading(np.ascontiguousarray(window), format_, names)
    else:
        raise ReadingShapeError(f"the samples are rows of shape {values.shape}, not windows", hint="--each row")


def _wait(broker: Broker, waiting: set[int], *, most: int, until: float) -> None:
    """Let the broker work until it is time, and no more than ``most`` messages are on their way."""
    patience = time.monotonic() + _PATIENCE
    while True:
        now = time.monotonic()
        if now >= until and len(waiting) <= most:
            broker.run_once(0.0)
            return
        if now > max(patience, until):
            raise BrokerError(f"the broker has not acknowledged {len(waiting)} messages")
        broker.run_once(min(max(until - now, 0.0), 0.5) if len(waiting) <= most and until > now else 0.5)
