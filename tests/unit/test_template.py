"""`edged listen --format`: lines as people want them, whatever a result holds."""

from __future__ import annotations

import click
import pytest

from edged.cli.listen import KEYS, Template

RESULT = {"device": "press-07", "label": "broken", "score": 0.9876, "version": 3, "scores": [0.1, 0.9]}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{device} {label} {score:.1%}", "press-07 broken 98.8%"),
        (r"{device}\t{version:>3}", "press-07\t  3"),
        ("{value} {value:.2f}", "- -"),
        ("{scores}", "[0.1, 0.9]"),
        ("{label:.2f}", "broken"),
        ("{{{label}}}", "{broken}"),
        ("no key at all", "no key at all"),
    ],
)
def test_a_line_holds_what_the_result_has(text: str, line: str) -> None:
    assert Template(text).fill(RESULT) == line


@pytest.mark.parametrize("text", ["{labl}", "{}", "{0}", "{label.__class__}", "{scores[0]}", "{label", "label}"])
def test_a_template_that_no_result_fits_is_refused_before_anything_is_printed(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Template(text)


def test_every_key_of_a_result_may_be_named() -> None:
    assert Template(" ".join(f"{{{key}}}" for key in KEYS)).fill({}) == " ".join("-" for _ in KEYS)
