"""Each test that the documentation names as proof exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
_DOCS = sorted((_TESTS.parent / "docs").rglob("*.md"))
_FILES = {str(path.relative_to(_TESTS).with_suffix("")) for path in _TESTS.rglob("test_*.py")}
_FUNCTIONS = {
    name
    for file in _FILES
    for name in re.findall(r"^def (test_\w+)", (_TESTS / f"{file}.py").read_text(), re.MULTILINE)
}


@pytest.mark.parametrize("page", _DOCS, ids=lambda page: page.name)
def test_each_test_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()

    assert set(re.findall(r"\w+/test_\w+", text)) <= _FILES
    assert set(re.findall(r"\[`(test_\w+)`\]", text)) <= _FUNCTIONS


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "docs/architecture.md", "docs/adr/0005-one-loop.md"])
def test_each_file_of_the_code_that_a_page_names_exists(page: str) -> None:
    root = _TESTS.parent
    named = set(re.findall(r"edged/[\w/]+\.py", (root / page).read_text()))
    if page == "docs/architecture.md":  # in its two flows, without the first folder
        named |= {f"edged/{name}" for name in re.findall(r"(?<![\w/])[a-z]+/[\w/]+\.py", (root / page).read_text())}

    assert {name for name in named if not (root / name).is_file()} <= {"edged/cli/NAME.py"}


def test_the_pages_name_tests_at_all() -> None:
    assert len(re.findall(r"\w+/test_\w+", (_TESTS.parent / "docs" / "threats.md").read_text())) > 20
