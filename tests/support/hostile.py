"""Boards that are not there: what runs in their place says whatever a test has them say, to real Ansible.

Ansible starts the "Python" of a host and believes what it prints. Here that is a program that never runs a module: it
looks up what to print. So a test plays a board that lies, or one that behaves, without a machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.ansible import COLLECTION, ansible_bin

_SETTINGS = """
[defaults]
collections_path = collections
home = .ansible
inject_facts_as_vars = {inject}
"""
_BOARD = """#!{python}
import json, pathlib, sys, time
path = pathlib.Path(sys.argv[-1])
module = path.name.removeprefix("AnsiballZ_").removesuffix(".py")
text = path.read_text() if path.exists() else ""
with open({log!r}, "a") as log:
    print(module, file=log)
for wanted, word, answer in json.loads(pathlib.Path({answers!r}).read_text()):
    if wanted == module and word in text:
        time.sleep(answer.pop("sleep", 0))  # a board that never answers: that is the attack
        print(json.dumps(answer))
        break
else:
    print(json.dumps({{"changed": False, "files": [], "stat": {{"exists": False}}}}))
"""
FACTS = {"ansible_distribution": "Debian", "ansible_distribution_major_version": "12"}
PROBE = {
    "changed": False, "architecture": "amd64", "installed": "", "federated": "", "apt": True, "random": True,
    "clock": 0.0, "free": 10**10, "misowned": [], "record": "", "packages": False,
}  # fmt: skip
"""The answer of the module `probe` on a machine on which there is nothing yet."""


@dataclass(frozen=True)
class Run:
    """The outcome of a run of Ansible."""

    code: int
    output: str


class Imagined:
    """A fleet in an inventory alone.

    :param path: a new directory.
    :param boards: names of boards; all of them, the hub ``home`` too, are played by one program.
    :ivar deb: a package of edged, in name alone.
    :ivar answers: what they say: module, a word that its text has to hold, answer; the first that fits counts.
        ``sleep`` in an answer: seconds that it takes.
    """

    def __init__(self, path: Path, *boards: str, inject: bool = False) -> None:
        self.path = path
        self.inventory = path / "inventory"
        self.records = path / "records"
        self.answers: list[tuple[str, str, dict[str, Any]]] = []
        self._log = path / "called"
        self._program = path / "board.py"
        self._inject = inject
        for folder in (self.inventory / "group_vars", self.records, path / "collections/ansible_collections/edged"):
            folder.mkdir(parents=True)
        (path / "collections/ansible_collections/edged/fleet").symlink_to(COLLECTION)
        self.deb = path / "packages" / "edged_0.1.0-1~deb12_amd64.deb"
        self.deb.parent.mkdir()
        self.deb.touch()
        settings = _SETTINGS.format(inject=str(inject).lower())
        (path / "ansible.cfg").write_text(settings)
        log, answers = str(self._log), str(path / "answers.json")
        self._program.write_text(_BOARD.format(python=sys.executable, log=log, answers=answers))
        self._program.chmod(0o755)
        names = "\n".join(boards)
        (self.inventory / "hosts.ini").write_text(
            f"[boards]\n{names}\n[hubs]\nhome\n[brokers]\nhome\n"
            "[all:vars]\nansible_connection=local\nansible_become=false\n"
            f"ansible_python_interpreter={self._program}\n"
            f"[machine]\nlocalhost ansible_python_interpreter={sys.executable}\n"
        )
        self.write(edged_version="0.1.0-1", edged_command=[sys.executable, "-m", "edged"])

    def write(self, group: str = "all", **variables: Any) -> None:
        """Say what holds for a group: JSON is YAML."""
        (self.inventory / "group_vars" / f"{group}.yml").write_text(json.dumps(variables))

    def write_playbook(self, text: str) -> Path:
        """Write a playbook of the test's own."""
        playbook = self.path / "play.yml"
        playbook.write_text(text)
        return playbook

    def called(self) -> list[str]:
        """Return the modules that were called on hosts."""
        return self._log.read_text().split() if self._log.exists() else []

    def play(self, playbook: str | Path, *arguments: str, inventory: Path | None = None, **variables: Any) -> Run:
        """Run a playbook, of the collection if it is a name.

        :param inventory: the inventory; its file, unless a test says otherwise.
        """
        (self.path / "answers.json").write_text(json.dumps(self.answers))
        folder = ansible_bin()
        assert folder is not None
        name = playbook if isinstance(playbook, Path) else f"edged.fleet.{playbook}"
        extra = ("-e", json.dumps(variables)) if variables else ()
        done = subprocess.run(
            [folder / "ansible-playbook", "-i", inventory or self.inventory / "hosts.ini", name, *extra, *arguments],
            cwd=self.path,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(self.path / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_PIPELINING": "false",
                "LANG": "C.UTF-8",
                "PATH": f"{folder}:{os.environ['PATH']}",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        return Run(done.returncode, done.stdout + done.stderr)
