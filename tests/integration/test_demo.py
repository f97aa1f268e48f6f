"""`edged demo` as a newcomer runs it: each window answered, the model nowhere in plain, nothing but ciphertext at the broker."""

from __future__ import annotations

import json
import re
from pathlib import Path

from support.commands import run_edged
from support.promises import NOTHING_READ

DEMO = ("demo", "--windows", 30, "--rate", 100)


@NOTHING_READ
def test_the_demo_shows_each_result_beside_what_the_broker_carried_of_it(tmp_path: Path) -> None:
    said = run_edged(*DEMO, cwd=tmp_path).stdout

    rows = re.findall(r"^…([0-9a-f]*)  (\d+) bytes +(healthy|imbalance|bearing) ", said, re.MULTILINE)
    assert {label for _, _, label in rows} == {"healthy", "imbalance", "bearing"}
    assert all(len(shown) == 32 for shown, *_ in rows)
    assert len({shown for shown, *_ in rows}) == len(rows)
    assert len({size for _, size, _ in rows}) == 1, "by its size a result says nothing"
    assert "30 of 30 windows answered" in said
    assert re.search(r"^the model in plain, in \d+ files: nowhere$", said, re.MULTILINE)


def test_the_demo_tells_a_machine_too(tmp_path: Path) -> None:
    facts = json.loads(run_edged(*DEMO, "--json", cwd=tmp_path).stdout)

    assert facts["windows"] == facts["results"] == 30
    assert facts["right"] > 20
    assert (facts["search"]["found"], facts["search"]["core_limit"]) == ([], 0)
