"""``python -m edged``."""

from edged.cli import main

main()
