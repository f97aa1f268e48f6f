"""Home Assistant's words: its device classes with their units, and the states that it keeps for itself.

As of its release 2025.4. The board's inventory names device classes and labels, and a hub shows them; an author hears
beforehand what will be shown otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edged.formats.spec import Chain

_MASS_IN_AIR = frozenset({"µg/m³"})
_PRESSURE = frozenset({"Pa", "bar", "cbar", "hPa", "inHg", "kPa", "mbar", "mmHg", "psi"})
_ENERGY = frozenset({"GJ", "GWh", "Gcal", "J", "MJ", "MWh", "Mcal", "TWh", "Wh", "cal", "kJ", "kWh", "kcal", "mWh"})
_VOLUME = frozenset({"CCF", "L", "fl. oz.", "ft³", "gal", "mL", "m³"})
_SPEED = frozenset({"ft/s", "in/s", "km/h", "kn", "m/s", "mm/s", "mph"})

UNITS: Mapping[str, frozenset[str]] = {
    "apparent_power": frozenset({"VA"}),
    "atmospheric_pressure": _PRESSURE,
    "battery": frozenset({"%"}),
    "carbon_dioxide": frozenset({"ppm"}),
    "carbon_monoxide": frozenset({"ppm"}),
    "conductivity": frozenset({"S/cm", "mS/cm", "µS/cm"}),
    "current": frozenset({"A", "mA"}),
    "distance": frozenset({"cm", "ft", "in", "km", "m", "mi", "mm", "nmi", "yd"}),
    "duration": frozenset({"d", "h", "min", "ms", "s", "\u03bcs"}),
    "energy": _ENERGY,
    "energy_storage": _ENERGY,
    "frequency": frozenset({"GHz", "Hz", "MHz", "kHz"}),
    "gas": frozenset({"CCF", "ft³", "m³"}),
    "humidity": frozenset({"%"}),
    "illuminance": frozenset({"lx"}),
    "irradiance": frozenset({"BTU/(h\u22c5ft²)", "W/m²"}),
    "moisture": frozenset({"%"}),
    "nitrogen_dioxide": _MASS_IN_AIR,
    "ozone": _MASS_IN_AIR,
    "pm1": _MASS_IN_AIR,
    "pm10": _MASS_IN_AIR,
    "pm25": _MASS_IN_AIR,
    "power": frozenset({"GW", "MW", "TW", "W", "kW", "mW"}),
    "precipitation": frozenset({"cm", "in", "mm"}),
    "pressure": _PRESSURE,
    "reactive_power": frozenset({"var"}),
    "signal_strength": frozenset({"dB", "dBm"}),
    "sound_pressure": frozenset({"dB", "dBA"}),
    "speed": _SPEED | {"in/d", "in/h", "mm/d", "mm/h"},
    "temperature": frozenset({"K", "°C", "°F"}),
    "voltage": frozenset({"MV", "V", "kV", "mV", "µV"}),
    "volume": _VOLUME,
    "volume_flow_rate": frozenset({"L/min", "ft³/min", "gal/min", "mL/s", "m³/h"}),
    "volume_storage": _VOLUME,
    "water": frozenset({"CCF", "L", "ft³", "gal", "m³"}),
    "weight": frozenset({"g", "kg", "lb", "mg", "oz", "st", "µg"}),
    "wind_speed": _SPEED,
}
"""Device classes of a value that are passed on, each with the units that Home Assistant takes for it."""

_ONLY_TOTALS = frozenset({"energy", "gas", "volume", "water"})
_TOTALS_TOO = _ONLY_TOTALS | {"distance", "duration", "precipitation", "weight"}

BINARY = frozenset(
    {"battery", "carbon_monoxide", "cold", "connectivity", "door", "gas", "heat", "light", "lock", "moisture", "motion"}
    | {"moving", "occupancy", "opening", "plug", "power", "presence", "problem", "running", "safety", "smoke", "sound"}
    | {"tamper", "update", "vibration", "window"}
)
"""Device classes of a label that is shown by itself."""

RESERVED = ("", "unknown", "unavailable", "None")
"""States of an entity that has no value: a label of that name could not be told from no label."""
_MICRO = str.maketrans("\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}")


def measured(unit: str, device_class: str, state_class: str) -> tuple[str, str]:
    """Return unit and device class of a value as Home Assistant takes them; the class is empty if the two do not fit.

    Either of the two micro signs may stand in the unit; Home Assistant has one for each unit.
    """
    fits = device_class in _TOTALS_TOO if state_class != "measurement" else device_class not in _ONLY_TOTALS
    if fits:
        for known in UNITS.get(device_class, ()):
            if known.translate(_MICRO) == unit.translate(_MICRO):
                return known, device_class
    return unit, ""


def shown_label(label: str) -> str:
    """Return a label as it is shown: without blanks around it, and told from no label."""
    text = label.strip()
    return f"label {text}".strip() if text in RESERVED else text


def remarks(chain: Chain) -> Iterator[str]:
    """Yield what of a manifest is shown otherwise than it says."""
    for label in chain.all_labels:
        if (shown := shown_label(label)) != label:
            yield f"output.labels: Home Assistant has no state {label!r} for a label: it shows it as {shown!r}"
    table = chain.home_assistant
    if table is None:
        return
    wanted, unit = table.device_class, chain.output.unit
    if chain.output.kind == "regressor":
        if wanted and not measured(unit, wanted, table.state_class)[1]:
            units = ", ".join(sorted(UNITS.get(wanted, ()))) or "none"
            yield (
                f"home_assistant.device_class: the value is shown without {wanted!r}, which Home Assistant does not"
                f" take in {unit!r} as a {table.state_class} (its units: {units})"
            )
        return
    watched = {} if chain.watched is None or wanted is None else {chain.watched: wanted}
    for label, device_class in {**watched, **table.binary}.items():
        if device_class not in BINARY:
            yield f"home_assistant: {label!r} is shown without {device_class!r}, no device class of a binary sensor"
