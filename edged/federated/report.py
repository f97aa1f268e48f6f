"""The result of a training, round by round: for people as a curve of text or a picture, for programs as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edged.base.errors import ConfigError

_BAR = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True)
class RoundReport:
    """One round.

    :ivar boards: whose updates were averaged.
    :ivar refused: boards whose updates were not, with the kind of refusal.
    :ivar silent: boards that sent none, with what they said instead.
    :ivar clipped: boards whose updates were cut down to the bound.
    :ivar score: of the weights that came out, on the aggregator's held-out examples.
    :ivar kept: whether they are what the next round begins with, and what is published.
    :ivar why: what spoke against it.
    """

    number: int
    boards: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    clipped: tuple[str, ...] = ()
    score: float | None = None
    kept: bool = False
    why: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        """Return the round in one line."""
        score = "" if self.score is None else f"{bar(self.score)} {self.score:7.2%}  "
        parts = [f"{len(self.boards)} boards", f"{self.seconds:.1f} s"]
        for what, boards in (("refused", self.refused), ("silent", self.silent)):
            parts += [f"{what} {', '.join(f'{board} ({why})' for board, why in boards.items())}"] if boards else []
        parts += [f"clipped {', '.join(self.clipped)}"] if self.clipped else []
        parts += [] if self.kept else [f"NOT KEPT: {self.why}"]
        return f"round {self.number:3d}  {score}{', '.join(parts)}"

    def to_json(self) -> dict[str, object]:
        """Return the round for JSON."""
        return asdict(self)


def bar(share: float) -> str:
    """Return a bar of text for a number from 0 to 1."""
    eighths = round(8 * _BAR * min(1.0, max(0.0, share))) if math.isfinite(share) else 0
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(_BAR, "·")


def curves(named: dict[str, Sequence[float]]) -> str:
    """Return several curves from 0 to 1, beside one another: a line a point."""
    lines = []
    for name, scores in named.items():
        numbered = len(scores) > 1
        lines += [f"{name}:"] if numbered else []
        width = max(map(len, named))
        for number, score in enumerate(scores):
            head = f"  {number:3d}".ljust(width) if numbered else name.ljust(width)
            lines.append(f"{head}  {bar(score)} {score:7.2%}")
    return "\n".join(lines)


def draw(path: Path, named: dict[str, Sequence[float]], title: str) -> None:
    """Write the curves as a PNG.

    :raises ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  for this alone, and not always there
        from matplotlib.figure import Figure  # noqa: PLC0415  as above
    except ImportError:
        raise ConfigError("--png needs matplotlib, which is not installed", hint="pip install matplotlib") from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (name, scores) in enumerate(named.items()):
        if len(scores) == 1:
            axes.axhline(100 * scores[0], linestyle="--", label=f"{name} ({scores[0]:.1%})", color=f"C{number}")
        else:
            axes.plot(range(len(scores)), [100 * score for score in scores], marker="o", label=name, color=f"C{number}")
    axes.set_xlabel("round")
    axes.set_ylabel("held-out score, %")
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
