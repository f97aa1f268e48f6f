"""When a board may train, read from files as the kernel writes them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import ConfigError
from edged.config.federated import When
from edged.federated.conditions import Conditions, within

_STAT = "cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 0 0 1 0 0 0 0 0 0\n"
_ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "{name}\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "lab0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
)


class Machine:
    """Files as a board's kernel shows them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cpu(0, 0)

    def file(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def cpu(self, busy: int, idle: int) -> None:
        self.file("proc/stat", _STAT.format(busy=busy, idle=idle))

    def supply(self, name: str, **said: str) -> None:
        for key, value in said.items():
            self.file(f"sys/class/power_supply/{name}/{key}", f"{value}\n")

    def says(self, **when: object) -> str | None:
        return Conditions(When(**when), self.root).in_the_way()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nothing_is_in_the_way_where_nothing_is_wanted(machine: Machine) -> None:
    assert machine.says() is None


def test_a_board_without_a_battery_is_on_mains(machine: Machine) -> None:
    assert machine.says(mains=True) is None


@pytest.mark.parametrize("status", ["Discharging", "Unknown"])
def test_a_battery_that_is_being_emptied_is_in_the_way(machine: Machine, status: str) -> None:
    machine.supply("BAT0", type="Battery", status=status)
    machine.supply("ADP0", type="Mains", online="0")
    assert "BAT0" in str(machine.says(mains=True))
    assert machine.says() is None


@pytest.mark.parametrize("charger", ["Mains", "USB", "Wireless"])
def test_a_charger_that_is_plugged_in_is_mains(machine: Machine, charger: str) -> None:
    machine.supply("BAT0", type="Battery", status="Discharging")
    machine.supply("ADP0", type=charger, online="1")
    assert machine.says(mains=True) is None


def test_the_battery_of_a_mouse_powers_no_board(machine: Machine) -> None:
    machine.supply("hid-mouse", type="Battery", status="Discharging", scope="Device")
    assert machine.says(mains=True) is None


def test_the_hottest_sensor_counts(machine: Machine) -> None:
    machine.file("sys/class/thermal/thermal_zone0/temp", "48312\n")
    machine.file("sys/class/thermal/thermal_zone1/temp", "71000\n")
    assert "71 °C" in str(machine.says(temperature=70))
    assert machine.says(temperature=72) is None


def test_a_bound_without_a_sensor_is_said_and_not_met(machine: Machine) -> None:
    assert "no temperature sensor" in str(machine.says(temperature=70))


def test_busy_cpus_are_in_the_way_until_they_are_idle(machine: Machine) -> None:
    conditions = Conditions(When(idle=0.5), machine.root)
    machine.cpu(busy=90_000, idle=10_000)
    assert "10% idle" in str(conditions.in_the_way())
    machine.cpu(busy=100_000, idle=100_000)
    assert conditions.in_the_way() is None


def test_what_the_training_itself_takes_is_not_in_its_way(machine: Machine) -> None:
    conditions = Conditions(When(idle=0.5), machine.root)
    begun, took = time.process_time(), 0.0
    while took < 0.2:
        took = time.process_time() - begun
    machine.cpu(busy=25, idle=5)  # 0.3 seconds of CPU, of which these were 0.2
    assert conditions.in_the_way() is None


def test_only_the_named_network_will_do(machine: Machine) -> None:
    machine.file("proc/net/route", _ROUTES.format(name="wwan0"))
    assert "wwan0" in str(machine.says(network=("eth0", "wlan0")))
    machine.file("proc/net/route", _ROUTES.format(name="wlan0"))
    assert machine.says(network=("eth0", "wlan0")) is None


def test_a_default_route_of_version_6_alone_is_a_network(machine: Machine) -> None:
    nothing, via = "0" * 32, "fe800000000000000000000000000001"
    machine.file("proc/net/ipv6_route", f"{nothing} 00 {nothing} 00 {nothing} ffffffff 00000001 0 00200200 lo\n")
    assert "down" in str(machine.says(network=("eth0",)))
    machine.file("proc/net/ipv6_route", f"{nothing} 00 {nothing} 00 {via} 00000400 00000003 0 00000003 eth0\n")
    assert machine.says(network=("eth0",)) is None


@given(st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 1439))
def test_each_minute_lies_in_a_window_or_in_the_rest_of_the_day(begins: int, ends: int, minute: int) -> None:
    now = time.struct_time((2026, 1, 1, minute // 60, minute % 60, 0, 0, 1, 0))
    if begins != ends:
        assert within((begins, ends), now) != within((ends, begins), now)
    else:
        assert within((begins, ends), now)


@pytest.mark.parametrize("hours", ["22-6", "24:00-06:00", "22:00", "22:60-06:00"])
def test_hours_that_are_none_are_refused(hours: str) -> None:
    with pytest.raises(ConfigError, match=r"federated\.when\.hours"):
        When(hours=hours)


def test_this_very_machine_answers() -> None:
    """No file of a real kernel trips it, whatever it has and has not."""
    said = Conditions(When(mains=True, temperature=199, idle=0.0, network=("no-such0",))).in_the_way()
    assert said is not None
