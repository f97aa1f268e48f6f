"""An author hears what of a manifest Home Assistant shows otherwise, before anything is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.formats.home_assistant import remarks
from edged.model.author import Author

REGRESSOR = """
name = "oil"
version = 1
[input]
channels = ["a"]
[output]
kind = "regressor"
unit = "{unit}"
[home_assistant]
name = "Oil"
device_class = "{device_class}"
state_class = "{state_class}"
"""
CLASSIFIER = """
name = "words"
version = 1
[input]
channels = ["a"]
[output]
kind = "classifier"
labels = {labels}
[home_assistant]
name = "Words"
binary = {binary}
"""


def said(folder: Path, text: str) -> list[str]:
    path = folder / "manifest.toml"
    path.write_text(text)
    return list(remarks(Author.read(path)))


@pytest.mark.parametrize(
    ("unit", "device_class", "state_class", "told"),
    [
        ("Pa", "pressure", "measurement", None),
        ("µg/m³", "pm25", "measurement", None),
        ("\N{GREEK SMALL LETTER MU}g/m³", "pm25", "measurement", None),
        ("C", "temperature", "measurement", "its units: K, °C, °F"),
        ("W", "power", "total", "as a total"),
        ("Pa", "presure", "measurement", "its units: none"),
    ],
)
def test_unit_that_loses_its_device_class_is_said(
    tmp_path: Path, unit: str, device_class: str, state_class: str, told: str | None
) -> None:
    found = said(tmp_path, REGRESSOR.format(unit=unit, device_class=device_class, state_class=state_class))

    assert len(found) == (told is not None)
    assert all(str(told) in one and device_class in one for one in found)


def test_labels_that_home_assistant_keeps_for_itself_are_said(tmp_path: Path) -> None:
    found = said(tmp_path, CLASSIFIER.format(labels=["yes", "unknown", "unavailable", "None"], binary="{}"))

    assert [one.split("'")[1] for one in found] == ["unknown", "unavailable", "None"]
    assert "'label unknown'" in found[0]


def test_device_class_of_no_binary_sensor_is_said(tmp_path: Path) -> None:
    found = said(tmp_path, CLASSIFIER.format(labels=["a", "b"], binary='{ a = "temperature", b = "motion" }'))

    assert ["'a'" in one and "'temperature'" in one for one in found] == [True]
