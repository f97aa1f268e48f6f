"""Ansible action: whether the machine that runs Ansible, and what was asked of it, are in order."""

from __future__ import annotations

import difflib
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible_collections.edged.fleet.plugins.plugin_utils.words import NAME, plain

_COLLECTION = Path(__file__).resolve().parents[2]
_VARIABLE = re.compile(r"\bedged_[a-z0-9_]+")
_READ_AS_INVENTORY = ("group_vars", "host_vars")
_GROUPS = {"boards": "edged_device", "hubs": "edged_hub_name", "aggregators": "edged_aggregator_name"}


class ActionModule(ActionBase):
    """The class that Ansible looks for."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:  # noqa: ANN401  Ansible's
        """Return everything that is amiss, each with its way out; nothing is changed."""
        super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(
            {
                "command": {"type": "bool", "default": False},
                "package": {"type": "bool", "default": False},
                "files": {"type": "bool", "default": False},
                "whole": {"type": "list", "elements": "str", "default": []},
            }
        )
        asked = _Asked(task_vars or {})
        amiss = [*asked.facts(), *asked.records(), *asked.variables(), *asked.names(), *asked.left_out(given["whole"])]
        if given["files"]:
            amiss += asked.files()
        if given["command"]:
            amiss += asked.command()
        if given["package"]:
            amiss += asked.package()
        return {"changed": False, "failed": bool(amiss), "msg": "; ".join(dict.fromkeys(amiss)) or "in order"}


class _Asked:
    """Ansible's command line: the playbook that was asked for, and its inventory."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = known
        self._hostvars = known["hostvars"]
        self._hosts = list(known["ansible_play_hosts_all"])

    def _values(self, name: str) -> Iterator[tuple[str, Any]]:
        """Yield each host's value of a variable, where it has one."""
        for host in self._hosts:
            if name in self._hostvars[host]:
                yield host, self._hostvars[host][name]

    def _folder(self, host: str) -> Path:
        """Return the folder of packages, records and keys."""
        known = self._hostvars[host]
        return Path(known["edged_folder"] if "edged_folder" in known else Path(known["inventory_dir"]).parent)

    def _of(self, host: str, name: str, default: str) -> Path:
        known = self._hostvars[host]
        return Path(known[name]) if name in known else self._folder(host) / default

    def facts(self) -> Iterator[str]:
        """Look whether boards can set variables of the fleet."""
        if constants.config.get_config_value("INJECT_FACTS_AS_VARS"):
            yield (
                "ansible.cfg must have inject_facts_as_vars = false below [defaults]: without it what a board says of"
                " itself sets variables of the fleet, edged_command for one, which runs on this machine"
            )

    def records(self) -> Iterator[str]:
        """Look whether Ansible would read what came from boards as inventory."""
        sources = map(Path, self._known.get("ansible_inventory_sources", []))
        folders = [source.resolve() for source in sources if source.is_dir()]
        beside = {Path(self._hostvars[host]["inventory_dir"]).resolve() for host in self._hosts}
        folders += [folder / name for folder in beside for name in _READ_AS_INVENTORY]
        for name in ("edged_records", "edged_hub_records", "edged_broker_records", "edged_aggregator_records"):
            for path in {self._of(host, name, "records").resolve() for host in self._hosts}:
                if inside := next((folder for folder in folders if path == folder or folder in path.parents), None):
                    yield (
                        f"{path} holds what came from boards, and Ansible reads all of {inside} as inventory: name the"
                        " inventory's file with -i, and keep the records out of its folder"
                    )

    def variables(self) -> Iterator[str]:
        """Look for variables that nothing reads: misspelt ones."""
        read = _known_variables()
        for name in sorted({name for host in self._hosts for name in self._hostvars[host] if name not in read}):
            if name.startswith("edged_"):
                near = difflib.get_close_matches(name, read, 1)
                yield f"{plain(name)} is no variable of this collection" + (f": {near[0]}?" if near else "")

    def names(self) -> Iterator[str]:
        """Look at names of boards, hubs and aggregators: they become names of files, users and topics."""
        for group, variable in _GROUPS.items():
            hosts = [host for host in self._known["groups"].get(group, []) if host in self._hosts]
            names = [str(self._hostvars[host].get(variable, host)) for host in hosts]
            for host, name in zip(hosts, names, strict=True):
                if not NAME.fullmatch(name):
                    yield (
                        f"{plain(host)}: {plain(name)} is not a name: set {variable} to a-z, 0-9, - and _, at most 64,"
                        " beginning with a letter or digit"
                    )
            for name, count in Counter(names).items():
                if count > 1:
                    yield f"{count} hosts of {group} are called {plain(name)} ({variable}): give each its own name"

    def left_out(self, groups: list[str]) -> Iterator[str]:
        """Look for hosts that have to take part, and that --limit leaves out."""
        for group in groups:
            if absent := sorted(set(self._known["groups"].get(group, [])) - set(self._hosts)):
                limit = ",".join((self._known.get("ansible_limit", "BOARD"), *groups))
                yield f"--limit leaves out {', '.join(absent)}, which must learn of it: --limit '{limit}'"

    def files(self) -> Iterator[str]:
        """Look whether files that the inventory names are there."""
        names = {name for host in self._hosts for name in self._hostvars[host] if name.startswith("edged_")}
        for name in sorted(one for one in names if one.endswith("_file")):
            for host, path in self._values(name):
                if path and not Path(path).is_file():
                    yield f"{name} of {host}: there is no file {path}"

    def command(self) -> Iterator[str]:
        """Look for edged on this machine."""
        commands = dict(self._values("edged_command"))
        for program in sorted({str(commands.get(host, ["edged"])[0]) for host in self._hosts}):
            if shutil.which(program) is None:
                yield f"this machine has no {program}: install edged here (docs/install.md), or set edged_command"

    def package(self) -> Iterator[str]:
        """Look for Debian packages of edged."""
        for host, version in self._values("edged_version"):
            folder = self._of(host, "edged_debs", "packages")
            if not any(folder.glob(f"edged_{version}~deb*.deb")):
                yield f"{folder} has no package of edged {version}: make deb, and copy .venv/deb/*.deb there"


def _known_variables() -> set[str]:
    """Return each name that the collection mentions."""
    files = (path for top in ("roles", "playbooks") for path in (_COLLECTION / top).rglob("*"))
    return {name for path in files if path.suffix in {".yml", ".j2"} for name in _VARIABLE.findall(path.read_text())}
