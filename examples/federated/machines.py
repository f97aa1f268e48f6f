"""Simulated machines, each another one: what a three-axis accelerometer on each measures, healthy and faulty.

A simulation, stated as one: good enough to see boards learn from one another, and no evidence about any real machine.
The sensor is AC-coupled (no gravity), :data:`RATE` samples a second, in m/s2; ``x`` and ``y`` are radial, ``z`` is
along the shaft.

- *healthy*: the shaft's harmonics and broadband noise;
- *imbalance*: the first harmonic grows, across the shaft;
- *misalignment*: the second harmonic grows, and what goes along the shaft most of all;
- *bearing*: blows, a few each turn, that ring the housing's resonance.

Boards differ in what their machine is (speed, load, resonance, how loud it is), in how their sensor sits (gain, angle
around the shaft), and in what goes wrong with it: most boards hardly ever see most faults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RATE = 1000
"""Rows a second."""

ROWS = 256
"""Of a window."""

CHANNELS = ("x", "y", "z")
CONDITIONS = ("healthy", "imbalance", "misalignment", "bearing")
"""The order is that of the model's labels."""

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.intp]
_Doubles = npt.NDArray[np.float64]

_SEED = 8  # of the fleet: machine 7 is the same one everywhere
_EVENNESS = 0.35  # of a Dirichlet distribution: the lower, the fewer conditions a board sees
_BLOWS_PER_TURN = 3.58
_SLIP = 0.02  # standard deviation of the time between blows, relative
_RING = 0.004  # s until a blow has decayed to 1/e

# Amplitudes in m/s2 along x, y, z. The faults' are those of a severity of 1.
_FIRST = np.array([0.60, 0.50, 0.15])
_SECOND = np.array([0.25, 0.22, 0.20])
_NOISE = np.array([0.30, 0.30, 0.25])
_IMBALANCE = np.array([3.0, 2.6, 0.3])
_MISALIGNMENT = np.array([0.9, 0.8, 2.2])
_BLOW = np.array([5.0, 7.0, 3.0])
_SEVERITY = (0.4, 1.0)


@dataclass(frozen=True)
class Machine:
    """A machine and the board on it.

    :ivar speed: of its shaft, in hertz.
    :ivar load: a factor of all that turns.
    :ivar noise: a factor of all that does not.
    :ivar resonance: of its housing, in hertz.
    :ivar gain: of its sensor.
    :ivar angle: of its sensor around the shaft, in radians.
    :ivar mix: how often it is in each of :data:`CONDITIONS`; adds up to 1.
    """

    speed: float
    load: float
    noise: float
    resonance: float
    gain: float
    angle: float
    mix: _Doubles

    @classmethod
    def number(cls, number: int) -> Machine:
        """Return one of any number of machines: the same for the same number."""
        rng = np.random.default_rng((_SEED, number))
        return cls(
            speed=rng.uniform(18.0, 36.0),
            load=rng.lognormal(0.0, 0.3),
            noise=rng.lognormal(0.0, 0.3),
            resonance=rng.uniform(260.0, 400.0),
            gain=rng.lognormal(0.0, 0.2),
            angle=rng.uniform(-0.5, 0.5),
            mix=rng.dirichlet(np.full(len(CONDITIONS), _EVENNESS)),
        )

    def labels(self, rng: np.random.Generator, count: int) -> Labels:
        """Draw conditions as often as this machine is in them: [count]."""
        return rng.choice(len(CONDITIONS), size=count, p=self.mix).astype(np.intp)

    def windows(self, rng: np.random.Generator, labels: Labels) -> Floats:
        """Measure one window in each of these conditions: float32 [count, ROWS, 3] in m/s2."""
        count = len(labels)
        load = self.load * rng.lognormal(0.0, 0.1, size=(count, 1, 1))
        severity = rng.uniform(*_SEVERITY, size=(count, 1, 1))
        speed = self.speed * rng.normal(1.0, 0.01, size=count)
        angle = 2 * np.pi * (rng.uniform(size=(count, 1)) + speed[:, None] / RATE * np.arange(ROWS))

        first, second = _turning(angle, _FIRST), _turning(2 * angle, _SECOND)
        signal = load * (first + second) + self.noise * _NOISE * rng.standard_normal((count, ROWS, 3))
        faults = (
            np.zeros_like(signal),
            _turning(angle, _IMBALANCE),
            _turning(2 * angle, _MISALIGNMENT),
            np.stack([self._blows(rng, float(each)) for each in speed]) if count else np.zeros_like(signal),
        )
        signal += load * severity * np.choose(labels[:, None, None], faults)
        return (self.gain * signal @ self._mounting()).astype(np.float32)

    def _blows(self, rng: np.random.Generator, speed: float) -> _Doubles:
        """Return the ringing after each ball that rolls over a spall, [ROWS, 3]."""
        between = RATE / (_BLOWS_PER_TURN * speed)
        gaps = between * rng.normal(1.0, _SLIP, size=int(1.1 * ROWS / between) + 2)
        starts = np.cumsum(gaps) - gaps[0] * rng.uniform()
        since = (np.arange(ROWS)[:, None] - starts) / RATE
        after = np.maximum(since, 0.0)
        ringing = (since >= 0) * np.exp(-after / _RING) * np.sin(2 * np.pi * self.resonance * after)
        blows: _Doubles = (ringing @ rng.lognormal(0.0, 0.25, size=len(starts)))[:, None] * _BLOW
        return blows

    def _mounting(self) -> _Doubles:
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _turning(angle: _Doubles, amplitude: _Doubles) -> _Doubles:
    """Return a force that turns with the shaft: y a quarter turn behind x, [count, ROWS, 3]."""
    lag = np.array([0.0, np.pi / 2, np.pi / 4])
    force: _Doubles = amplitude * np.cos(angle[:, :, None] - lag)
    return force
