"""What edged promises, as markers; and a plugin of pytest that says which of it the tests found kept."""

from __future__ import annotations

from collections import defaultdict

import pytest

SIGNED = pytest.mark.promise("only a package that a pinned publisher signed for this board is installed or served")
NEVER_OLDER = pytest.mark.promise("no version below one that was accepted is ever served again")
RAM_ONLY = pytest.mark.promise(
    "weights and keys are in locked RAM only, in no file, core dump or log, and wiped once they are let go"
)
DECIDED = pytest.mark.promise(
    "each of 100 windows is decided right, over TLS, by a daemon and a listener that are processes"
)
NOTHING_READ = pytest.mark.promise(
    "the broker in between reads nothing: neither readings that are sealed, nor any result"
)
NOTHING_LOST = pytest.mark.promise(
    "no reading is lost and none is answered twice, whichever of broker and daemon is killed"
)
NO_REPLAY = pytest.mark.promise("nothing that was accepted is accepted again, moved, altered or under another key")
BAD_READINGS = pytest.mark.promise("a reading that is not as configured costs itself alone")
BAD_SITE = pytest.mark.promise("what is wrong with a site is said in one line, by its file or key, with the way out")
SWAPS = pytest.mark.promise("a new version takes over between two windows, and gives way where it is wrong")
HUB = pytest.mark.promise("a hub accepts each result once, and none that a board did not seal")


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
            count = f"{len(tests)} test{'s' if len(tests) > 1 else ''}"
            said = f"BROKEN ({len(broken)} of {count})" if broken else f"kept   ({count})"
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
