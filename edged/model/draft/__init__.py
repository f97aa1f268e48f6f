"""A starting manifest from what a model says of itself; what it leaves open is guessed, and marked as a guess."""

from edged.model.draft.draft import choose_signature, draft

__all__ = ["choose_signature", "draft"]
