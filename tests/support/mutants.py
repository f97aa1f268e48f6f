"""A copy of the installed package in which one thing is broken on purpose, and the tests on that copy."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

import edged

_TESTS = Path(__file__).resolve().parents[1]
_MAKEFILE = _TESTS.parent / "Makefile"
_NO_MUTANT = re.compile(r"\b(?:SyntaxError|NameError|UnboundLocalError|ImportError|ModuleNotFoundError): ")
"""How code fails that says nothing about a promise."""


class Mutant(NamedTuple):
    """One mistake.

    :ivar name: of what is changed: module, class, function or constant, with dots between.
    :ivar old: what stands in its source exactly once; ``new`` takes its place.
    :ivar test: the test that must fail, below ``tests/``.
    :ivar promise: the one that must be reported as broken.
    """

    name: str
    old: str
    new: str
    test: str
    promise: pytest.MarkDecorator

    def apply(self, package: Path) -> Path:
        """Change a copy of the package; return the file that was changed.

        :raises AssertionError: there is nothing of that name, or its source does not hold ``old`` exactly once.
        """
        file, names = _file_of(package, self.name)
        text = file.read_text()
        lines = text.splitlines(keepends=True)
        node = _find(ast.parse(text), names)
        assert node is not None, f"{self.name} does not exist"
        first, last = _span(node)
        source = "".join(lines[first - 1 : last])
        assert source.count(self.old) == 1, f"{self.name} holds {source.count(self.old)} times:\n{self.old}"
        changed = "".join(lines[: first - 1]) + source.replace(self.old, self.new) + "".join(lines[last:])
        ast.parse(changed)
        file.write_text(changed)
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            compiled.unlink()
        return file


def _file_of(package: Path, name: str) -> tuple[Path, list[str]]:
    """Return the file that holds what a dotted name names, and what it is called there."""
    top, *levels = name.split(".")
    assert top == package.name
    at = package
    for number, level in enumerate(levels):
        if (at / level).is_dir():
            at /= level
        elif (at / f"{level}.py").is_file():
            return at / f"{level}.py", levels[number + 1 :]
        else:
            return at / "__init__.py", levels[number:]
    raise AssertionError(f"{name} is a package")


def _find(tree: ast.AST, names: Sequence[str]) -> ast.AST | None:
    """Return what ``names`` leads to: through classes to a class, function or assignment."""
    for name in names:
        found = [node for node in ast.iter_child_nodes(tree) if name in _defines(node)]
        if len(found) != 1:
            return None
        tree = found[0]
    return tree


def _defines(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]


def _span(node: ast.AST) -> tuple[int, int]:
    """Return the first and the last line of a definition, its decorators included."""
    decorators = getattr(node, "decorator_list", [])
    return min(one.lineno for one in (node, *decorators)), node.end_lineno  # type: ignore[attr-defined]


class Case(NamedTuple):
    """One test's outcome, ``passed``, ``failed`` or ``skipped``, and what was said."""

    name: str
    outcome: str
    said: str


class Run(NamedTuple):
    """An end of pytest.

    :ivar code: its exit code.
    :ivar broken: the promises that it reports as broken, and ``kept``: as kept.
    """

    code: int
    cases: list[Case]
    broken: set[str]
    kept: set[str]
    output: str

    def check_red(self, promise: pytest.MarkDecorator) -> str:
        """Check that one test failed, as a test does, and broke this promise; return why it failed."""
        assert self.code == pytest.ExitCode.TESTS_FAILED, f"pytest left with {self.code}\n{self.output}"
        assert {case.name for case in self.cases} == {self.cases[0].name}, self.output
        assert self.cases[0].outcome == "failed", self.output
        assert not _NO_MUTANT.search(self.output), self.output
        assert self.broken == {promise.args[0]}, self.output
        return self.cases[0].said


class Copy:
    """The installed package once more, in a folder of its own.

    :ivar package: the folder that is imported.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.package = folder / "site-packages" / "edged"
        shutil.copytree(Path(edged.__file__).parent, self.package)

    def mutate(self, mutant: Mutant) -> None:
        """Make a mistake in it, which leaves word wherever it is imported."""
        file = mutant.apply(self.package)
        with file.open("a") as end:
            end.write(f"\nopen({str(self._folder / 'imported')!r}, 'a').close()\n")

    @property
    def was_imported(self) -> bool:
        """True once somebody has imported the module with the mistake."""
        return (self._folder / "imported").exists()

    def test(self, *tests: str, timeout: float) -> Run:
        """Run tests on it that `make test` selects, as it runs them."""
        report = self._folder / "report.xml"
        command = [
            sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-m", make_test()[0],
            f"--basetemp={self._folder / 'tmp'}", f"--junitxml={report}", *tests,
        ]  # fmt: skip
        done = subprocess.run(
            command,
            cwd=_TESTS,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout,
        )
        output = done.stdout
        found = ET.parse(report).iter("testcase") if report.exists() else ()
        return Run(
            done.returncode,
            [_case(one) for one in found],
            _promises("BROKEN", output),
            _promises("kept", output),
            output,
        )

    def _environment(self) -> dict[str, str]:
        """Return this process's environment, without what makes tests long or tells them whose they are."""
        ours = {name: value for name, value in os.environ.items() if not re.match("PYTEST_|EDGED_", name)}
        models = str(_TESTS / "models")
        return {**ours, "PYTHONPATH": str(self.package.parent), "PYTHONSAFEPATH": "1", "EDGED_MODELS": models}


@contextmanager
def copied() -> Iterator[Copy]:
    """Copy the package until the block ends; not below pytest's folders, whose names are too long for sockets in them."""
    with tempfile.TemporaryDirectory(prefix="edged-mutant-") as folder:
        yield Copy(Path(folder))


def make_test() -> tuple[str, list[str]]:
    """Return which markers and which folders `make test` selects."""
    found = re.search(
        r"^test:.*\n(?:\t.*\n)*?\t.*\.ci/suite test test '(.*?)' (.*)$", _MAKEFILE.read_text(), re.MULTILINE
    )
    assert found is not None, "the Makefile runs no suite under `test`"
    return found[1], found[2].split()


def _case(found: ET.Element) -> Case:
    name = f"{found.get('classname')}.{found.get('name')}"
    for tag, outcome in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        if (said := found.find(tag)) is not None:
            return Case(name, outcome, said.get("message", ""))
    return Case(name, "passed", "")


def _promises(said: str, output: str) -> set[str]:
    _, _, section = output.partition("= promises =")
    return set(re.findall(rf"^{said} +\(\d+(?: of \d+)? tests?\) +(.*)$", section, re.MULTILINE))
