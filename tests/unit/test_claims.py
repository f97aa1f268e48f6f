"""Each test that the documentation names as proof exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
_DOCS = sorted((_TESTS.parent / "docs").rglob("*.md"))
_FILES = {str(path.relative_to(_TESTS).with_suffix("")) for path in _TESTS.rglob("test_*.py")}
_FUNCTIONS = {
    file: set(re.findall(r"^def (test_\w+)", (_TESTS / f"{file}.py").read_text(), re.MULTILINE)) for file in _FILES
}
_NAMES = set().union(*_FUNCTIONS.values())
_THREATS = _TESTS.parent / "docs" / "threats.md"
_POLICIES = {"I (1)", "II (5)", "II (6)"}
"""Requirements that a page meets, not a program."""


@pytest.mark.parametrize("page", _DOCS, ids=lambda page: page.name)
def test_each_test_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()

    assert set(re.findall(r"\w+/test_\w+", text)) <= _FILES
    assert {
        name for file, name in re.findall(r"(\w+/test_\w+)\.py::(test_\w+)", text) if name not in _FUNCTIONS[file]
    } == set()
    assert set(re.findall(r"\[`(test_\w+)`\]", text)) <= _NAMES
    for end in re.findall(r"`\.\.\.(\w+)`", text):  # of a test's name, behind another's in full
        assert any(name.endswith(end) for name in _NAMES), end


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "docs/architecture.md", "docs/adr/0005-one-loop.md"])
def test_each_file_of_the_code_that_a_page_names_exists(page: str) -> None:
    root = _TESTS.parent
    named = set(re.findall(r"edged/[\w/]+\.py", (root / page).read_text()))
    if page == "docs/architecture.md":  # in its two flows, without the first folder
        named |= {f"edged/{name}" for name in re.findall(r"(?<![\w/])[a-z]+/[\w/]+\.py", (root / page).read_text())}

    assert {name for name in named if not (root / name).is_file()} <= {"edged/cli/NAME.py"}


def _rows(heading: str) -> list[list[str]]:
    """Return the cells of all tables of threats.md below headings that begin so, without the tables' heads."""
    found: list[list[str]] = []
    for section in re.split(r"^(?=##)", _THREATS.read_text(), flags=re.MULTILINE):
        if section.startswith(heading):
            lines = [line for line in section.splitlines() if line.startswith("|")]
            found += [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return found


def test_each_promise_names_a_test() -> None:
    promises = _rows("## Promises about ")

    assert len(promises) > 60
    assert [row[0] for row in promises if not re.search(r"`\w+/test_\w+\.py", row[-1])] == []


@pytest.mark.parametrize(
    ("heading", "chapters"),
    [("### OWASP AISVS", ("C3.1.", "C4.1.", "C4.2.", "C4.3.", "C6.2.")), ("### CRA", ("I ", "II "))],
)
def test_each_requirement_is_met_with_a_test_or_says_why_not(heading: str, chapters: tuple[str, ...]) -> None:
    rows = _rows(heading)

    assert all(any(row[0].startswith(chapter) for row in rows) for chapter in chapters)
    assert {row[2] for row in rows} <= {"met", "in part", "not"}
    assert {row[0] for row in rows if row[2] == "met" and "/test_" not in row[3]} <= _POLICIES
    assert [row[0] for row in rows if not row[3]] == []
