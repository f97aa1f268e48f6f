"""A plugin of pytest that says which promises the tests kept: those with the marker ``promise``, under its text."""

from __future__ import annotations

from collections import defaultdict

import pytest


class _Ledger:
    """Outcomes of tests, by promise.

    :ivar broken: the tests that failed.
    """

    def __init__(self) -> None:
        self.tests: dict[str, set[str]] = defaultdict(set)
        self.broken: dict[str, set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, text in report.user_properties:
            if name == "promise":
                self.tests[str(text)].add(report.nodeid)
                if report.outcome != "passed":
                    self.broken[str(text)].add(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.tests:
            return
        terminalreporter.section("promises")
        for text, tests in sorted(self.tests.items()):
            broken = sorted(self.broken[text])
            said = f"BROKEN ({len(broken)} of {len(tests)} tests)" if broken else f"kept   ({len(tests)} tests)"
            terminalreporter.line(f"{said:<24} {text}", red=bool(broken), green=not broken)
            for test in broken:
                terminalreporter.line(f"{'':<24} {test}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Ledger())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have each report carry its promise, over xdist too."""
    for item in items:
        if (marker := item.get_closest_marker("promise")) is not None:
            (text,) = marker.args
            item.user_properties.append(("promise", text))
