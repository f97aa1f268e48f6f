"""The runtimes that this Python has to have: nothing is skipped for want of one."""

from __future__ import annotations

import sys
from typing import Literal

Name = Literal["litert", "tflite"]

ENGINES: tuple[Name, ...] = (
    *(("litert",) if sys.maxsize > 2**32 else ()),  # no 32-bit wheels
    *(("tflite",) if sys.version_info < (3, 12) else ()),  # no wheels for newer Pythons
)
