"""The outcome of `edged try`: accuracy, confusions, foreign labels, clipped inputs, errors of anomaly detectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edged.formats.spec import Chain
from edged.model.dry_run import TriedWindow

Doubles = npt.NDArray[np.float64]
_WIDEST = 12
"""Labels up to which a matrix is printed; of more, the commonest confusions."""
_MOST_LINES = 20
_NAMED = 5
_USUAL = 0.99
"""Share of unlabelled windows that a proposed threshold takes for usual."""
_NOTABLE = 0.001
"""Share of clipped values from which on they are worth a hint."""


def verdict(chain: Chain, tried: Sequence[TriedWindow]) -> Iterator[str]:
    """Yield the lines that a person reads after a trial."""
    yield from _accuracy(chain, tried)
    yield from _clipped(tried)
    if chain.output.kind == "anomaly" and tried:
        yield from _anomalies(chain, tried)


def _accuracy(chain: Chain, tried: Sequence[TriedWindow]) -> Iterator[str]:
    judged = [window for window in tried if window.right is not None and window.best is not None]
    if not judged:
        yield f"{len(tried)} windows"
        return
    best = sum(window.best == window.right for window in judged)
    decided = sum(window.decision.label == window.right for window in judged)
    yield f"{len(tried)} windows: {best} of {len(judged)} right ({best / len(judged):.2%})"
    if decided != best:
        yield f"after [decide]: {decided} of {len(judged)} right ({decided / len(judged):.2%})"
    foreign = Counter(window.right for window in judged if window.right not in chain.all_labels)
    if foreign:
        named = ", ".join(f"{label!r} ({count})" for label, count in foreign.most_common(_NAMED))
        more = "" if len(foreign) <= _NAMED else f" and {len(foreign) - _NAMED} more"
        yield f"labels of the file that the model does not have, counted as wrong: {named}{more}"
    yield from _confusions(chain, judged)


def _confusions(chain: Chain, judged: Sequence[TriedWindow]) -> Iterator[str]:
    counts = Counter((str(window.right), str(window.best)) for window in judged)
    rows = [*chain.all_labels, *sorted({right for right, _ in counts} - set(chain.all_labels))]
    rows = [label for label in rows if any(right == label for right, _ in counts)]
    columns = [label for label in chain.all_labels if any(best == label for _, best in counts)]
    if len({*rows, *columns}) > _WIDEST:
        wrong = Counter({pair: count for pair, count in counts.items() if pair[0] != pair[1]})
        for (right, best), count in wrong.most_common(_MOST_LINES):
            yield f"  {right} taken for {best}: {count}"
        return
    widths = [max(len(label), len(str(len(judged)))) for label in columns]
    first = max(len("right"), *map(len, rows))
    yield "  ".join(["right".ljust(first), *(name.rjust(width) for name, width in zip(columns, widths, strict=True))])
    for right in rows:
        cells = (str(counts[right, best]).rjust(width) for best, width in zip(columns, widths, strict=True))
        yield "  ".join([right.ljust(first), *cells])


def _clipped(tried: Sequence[TriedWindow]) -> Iterator[str]:
    share = float(np.mean([window.clipped for window in tried])) if tried else 0.0
    if share:
        hint = ": is it normalised as it was trained?" if share > _NOTABLE else ""
        yield f"{share:.2%} of the values lie outside of what the model's input holds, and were clipped{hint}"


def _anomalies(chain: Chain, tried: Sequence[TriedWindow]) -> Iterator[str]:
    """Yield the distribution of the errors, of each label by itself, and a threshold that would part them."""
    below, above = chain.output.labels
    enter = None if chain.decide is None else chain.decide.enter
    groups = {label: _errors(tried, label) for label in (below, above)}
    if not all(map(len, groups.values())):
        groups = {label: one for label, one in groups.items() if len(one)} or {"": _errors(tried, None)}
    for label, errors in groups.items():
        least, half, high, most = np.quantile(errors, [0, 0.5, _USUAL, 1])
        yield f"errors{label and f' of {label}'}: {least:.6g} to {most:.6g}, median {half:.6g}, 99 % up to {high:.6g}"
    if len(groups) > 1 and np.median(groups[below]) > np.median(groups[above]):
        yield f"{below} has larger errors than {above}: output.labels names first what holds below decide.enter"
        return
    if len(groups) > 1:
        threshold, right = _best_threshold(groups[below], groups[above])
        basis = f"takes {right:.2%} of each label for what it is, on average"
    elif above in groups:
        return
    else:
        threshold = float(np.quantile(next(iter(groups.values())), _USUAL))
        basis = f"lies above 99 % of these windows, if they are all {below}"
    yield f"decide.enter = {threshold:.6g} {basis}; the manifest has {enter:.6g}"


def _errors(tried: Sequence[TriedWindow], label: str | None) -> Doubles:
    return np.array([window.scores[0] for window in tried if label is None or window.right == label], np.float64)


def _best_threshold(below: Doubles, above: Doubles) -> tuple[float, float]:
    """Return the threshold in the widest gap among those that tell the labels apart best, and the mean share right."""
    ordered = np.unique(np.concatenate((below, above)))
    if len(ordered) == 1:
        return float(ordered[0]), 0.5
    edges = (ordered[1:] + ordered[:-1]) / 2
    shares = (
        np.searchsorted(np.sort(below), edges) / len(below) + 1 - np.searchsorted(np.sort(above), edges) / len(above)
    ) / 2
    best = np.flatnonzero(np.isclose(shares, shares.max()))
    widest = best[np.argmax(np.diff(ordered)[best])]
    return float(edges[widest]), float(shares[widest])
