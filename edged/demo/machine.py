"""A simulated pump: what a three-axis accelerometer on its bearing housing measures, healthy and faulty.

A simulation, stated as one: good enough to show the whole loop, and no evidence about any real machine. The sensor is
AC-coupled (no gravity), :data:`RATE` samples a second, in m/s2; ``x`` and ``y`` are radial, ``z`` is along the shaft.

- *healthy*: the shaft's first and second harmonic, the five blades passing, broadband noise;
- *imbalance*: the first harmonic grows, its two radial parts a quarter turn apart;
- *bearing*: a spall on the outer race. Each ball that rolls over it is a blow, which rings the housing's resonance; the
  balls slip a little, so the blows are not quite periodic.

Every call draws its own operating point (speed, load, noise), so that no two stretches are alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

RATE = 1000
"""Rows a second."""

CHANNELS = ("x", "y", "z")
"""The columns of every array here."""

Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]

_SHAFT = 24.5  # Hz: 1,470 turns a minute, a four-pole motor under load
_BLADES = 5
_BLOWS_PER_TURN = 3.58  # outer race: balls/2 * (1 - ball/pitch * cos(contact angle)) for eight balls
_SLIP = 0.02  # standard deviation of the time between blows, relative
_RESONANCE = 320.0  # Hz
_RING = 0.004  # s until a blow has decayed to 1/e

# Amplitudes in m/s2 along x, y, z. The faults' are those at full severity.
_FIRST = np.array([0.60, 0.50, 0.15])
_SECOND = np.array([0.25, 0.22, 0.20])
_BLADE = np.array([0.30, 0.35, 0.10])
_NOISE = np.array([0.30, 0.30, 0.25])
_IMBALANCE = np.array([4.0, 3.4, 0.5])
_BLOW = np.array([7.0, 11.0, 4.0])


class Condition(StrEnum):
    """The machine's state; the order is that of the model's labels."""

    HEALTHY = "healthy"
    IMBALANCE = "imbalance"
    BEARING = "bearing"


@dataclass(frozen=True)
class _OperatingPoint:
    """The operating point of one stretch: speed in Hz, the load's and the noise's factor, the first phase."""

    speed: float
    load: float
    noise: float
    phase: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _OperatingPoint:
        return cls(
            speed=_SHAFT * rng.normal(1.0, 0.01),
            load=rng.lognormal(0.0, 0.12),
            noise=rng.lognormal(0.0, 0.15),
            phase=rng.uniform(0.0, 2 * np.pi),
        )


def simulate(rng: np.random.Generator, condition: Condition, severity: float, seconds: float) -> Floats:
    """Return one stretch of vibration: float32 ``[round(seconds * RATE), 3]`` in m/s2, the same for the same ``rng``.

    :param severity: 0 (just as healthy) to 1 (fully developed); without meaning for a healthy machine.
    :raises ValueError: ``severity`` is outside 0 to 1, or ``seconds`` are too few for one row.
    """
    rows = round(seconds * RATE)
    if not 0 <= severity <= 1:
        raise ValueError("severity lies between 0 and 1")
    if rows < 1:
        raise ValueError("a stretch has at least one row")
    point = _OperatingPoint.draw(rng)
    signal = _running(rng, point, rows)
    if condition is Condition.IMBALANCE:
        signal += severity * point.load * _turning(point, rows, _IMBALANCE)
    elif condition is Condition.BEARING:
        signal += severity * point.load * _blows(rng, point, rows)
    return signal.astype(np.float32)


def _running(rng: np.random.Generator, point: _OperatingPoint, rows: int) -> _Doubles:
    """Return what every running pump does, [rows, 3]."""
    angle = _angle(point, rows)
    second, blades = rng.uniform(0.0, 2 * np.pi, size=(2, len(CHANNELS)))
    periodic = (
        _turning(point, rows, _FIRST)
        + _SECOND * np.cos(2 * angle[:, None] + second)
        + _BLADE * np.cos(_BLADES * angle[:, None] + blades)
    )
    noise = _NOISE * rng.standard_normal((rows, len(CHANNELS)))
    running: _Doubles = point.load * periodic + point.noise * noise
    return running


def _angle(point: _OperatingPoint, rows: int) -> _Doubles:
    """Return the shaft's angle in radians at each row."""
    return point.phase + 2 * np.pi * point.speed / RATE * np.arange(rows)


def _turning(point: _OperatingPoint, rows: int, amplitude: _Doubles) -> _Doubles:
    """Return a force that turns with the shaft: y a quarter turn behind x, [rows, 3]."""
    lag = np.array([0.0, np.pi / 2, np.pi / 4])
    force: _Doubles = amplitude * np.cos(_angle(point, rows)[:, None] - lag)
    return force


def _blows(rng: np.random.Generator, point: _OperatingPoint, rows: int) -> _Doubles:
    """Return the ringing after each ball that rolls over the spall, [rows, 3]."""
    between = RATE / (_BLOWS_PER_TURN * point.speed)
    gaps = between * rng.normal(1.0, _SLIP, size=int(1.1 * rows / between) + 2)
    starts = np.cumsum(gaps) - gaps[0] * rng.uniform(0.0, 1.0)
    strengths = rng.lognormal(0.0, 0.25, size=len(starts))
    # Each blow rings for a few rows only: add those, [blows, tail], instead of every blow to every row.
    tail = np.ceil(starts).astype(np.intp)[:, None] + np.arange(round(10 * _RING * RATE))
    since = (tail - starts[:, None]) / RATE
    ringing = strengths[:, None] * np.exp(-since / _RING) * np.sin(2 * np.pi * _RESONANCE * since)
    inside = tail < rows
    summed: _Doubles = np.bincount(tail[inside], weights=ringing[inside], minlength=rows)[:, None] * _BLOW
    return summed
