"""From scores to a decision, and whether it is worth publishing. Each stage is there only if the manifest states it.

Mean or median of the scores, then a label (the best, by thresholds, or the watched one), then the majority of labels,
then N of M of them, then what is told.
"""

from edged.model.signal.decide.decider import Decider, Decision

__all__ = ["Decider", "Decision"]
