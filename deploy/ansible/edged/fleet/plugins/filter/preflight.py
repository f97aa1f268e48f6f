"""The filter that says why a machine is not fit for edged."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.edged.fleet.plugins.plugin_utils.words import plain

_RELEASES = ("12", "13")
_ARCHITECTURES = ("amd64", "arm64")
_MEGA = 1_000_000


def unfit(found: dict[str, Any], want: dict[str, Any]) -> list[str]:
    """Return everything that stands in the way on a machine, each with its way out.

    :param found: what the module `probe` returned, and `distribution` and `release` of the facts.
    :param want: `free` (bytes), `now` (Unix seconds here), `tolerance` (seconds), `state` and `user`.
    """
    off = abs(float(found["clock"]) - float(want["now"]))
    release = plain(f"{found['distribution']} {found['release']} on {found['architecture']}")
    supported = (
        found["distribution"] == "Debian" and found["release"] in _RELEASES and found["architecture"] in _ARCHITECTURES
    )
    user, state, wanted = want["user"], want["state"], int(want["free"])
    looked = {
        f"{release} is not supported: there are packages for Debian and Raspberry Pi OS 12 and 13 on amd64 and arm64;"
        " docs/fleet.md says what to do on 32 bits": supported,
        f"its clock is not set: it is {off:.0f} s away from this machine's, and certificates and expiry go by it; let"
        " it reach a time server (timedatectl)": off <= int(want["tolerance"]),
        "its kernel has not gathered enough entropy for keys: wait, or give it a hardware generator or"
        " rng-tools5": found["random"],
        f"its disk is nearly full: {found['free'] // _MEGA} MB are free below /var/lib, and {wanted // _MEGA} MB are"
        " wanted (edged_least_free)": found["free"] >= wanted,
        f"{plain(', '.join(found['misowned']))} must belong to {user} and be closed to others: chown -R {user}: {state}"
        f" && chmod 0700 {state}": not found["misowned"],
        "it has no python3-apt, which Ansible installs packages with: apt-get install python3-apt": found["apt"],
    }
    return [problem for problem, absent in looked.items() if not absent]


def build(architecture: str, release: str) -> str:
    """Return what stands in the name of the package that fits a machine: C(12_arm64).

    Both are the machine's own word. Anything but what there are packages for is refused, and no part of a path.
    """
    if architecture not in _ARCHITECTURES or release not in _RELEASES:
        raise AnsibleFilterError(f"build: there is no package for Debian {plain(release)} on {plain(architecture)}")
    return f"{release}_{architecture}"


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"unfit": unfit, "build": build, "plain": plain}
