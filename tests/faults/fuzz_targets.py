"""Let atheris, which watches what a message reaches in edged's code, look for bytes that a target does not stand.

    python fuzz_targets.py TARGET DIRECTORY [option of libFuzzer...]

The directory takes a folder of seeds, which is made here, and what was found. Only an EdgedError may come out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["edged"]):
    from support.targets import targets


def main() -> None:
    """Run one target until an option ends it. It leaves with another code than 0 if anything was found."""
    name, directory, *options = sys.argv[1:]
    target = targets()[name]
    corpus = Path(directory) / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / f"{number:03d}").write_bytes(seed)
    atheris.Setup([sys.argv[0], str(corpus), f"-artifact_prefix={directory}/", *options], target)
    atheris.Fuzz()


main()
