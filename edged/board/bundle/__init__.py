"""A support bundle: what a maintainer needs to see of a board, and nothing that its owner must not hand out.

``facts`` reads the machine, ``sections`` says what goes in, ``names`` finds what is to be masked, ``redact`` masks it.
"""

from edged.board.bundle.redact import Redactor
from edged.board.bundle.sections import SECTIONS, gather, pack

__all__ = ["SECTIONS", "Redactor", "gather", "pack"]
