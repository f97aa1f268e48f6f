"""Boards that attack the machine which Ansible runs on, and what must not be undone: played to real Ansible."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.identity import Record, Role
from support.ansible import COLLECTION, ansible_bin
from support.hostile import FACTS, PROBE, Imagined

NAME = "press-07"
COLLECT = """
- hosts: boards
  gather_facts: false
  tasks:
    - edged.fleet.collect:
        src: /var/lib/edged/keystore/device.enrol
        dest: "{{ playbook_dir }}/records/{{ inventory_hostname }}.%s"
        name: "{{ inventory_hostname }}"
        command: "{{ edged_command }}"
        replace: "{{ replace | default(false) }}"
"""
INVENTORY = b"""[all:vars]
ansible_ssh_common_args='-o PermitLocalCommand=yes -o LocalCommand="touch /tmp/pwned"'
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Imagined:
    if ansible_bin() is None:
        pytest.skip("no Ansible: `make hosts` installs it")
    return Imagined(tmp_path, NAME, "press-08")


def record(name: str = NAME, role: Role = Role.DEVICE) -> bytes:
    sign, ecdh = PrivateKey.generate(), PrivateKey.generate()
    aead = Aead.CHACHA20_POLY1305 if role is Role.DEVICE else None
    return Record(role, name, sign.public, ecdh.public, aead, 1_800_000_000).encode(sign)


def slurped(data: bytes) -> tuple[str, str, dict[str, Any]]:
    """Return what a board says when its record is asked for."""
    return "slurp", "", {"changed": False, "content": base64.b64encode(data).decode(), "encoding": "base64"}


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


# --- records ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: INVENTORY, id="an inventory"),
        pytest.param(lambda: flipped(record()), id="a signature that does not hold"),
        pytest.param(lambda: record("press-99"), id="another board's name"),
        pytest.param(lambda: record(role=Role.HUB), id="a hub's"),
        pytest.param(lambda: record() + INVENTORY, id="a record, and more behind it"),
        pytest.param(lambda: bytes(100_000), id="endless"),
        pytest.param(lambda: b"", id="nothing"),
    ],
)
def test_what_is_no_record_of_that_board_is_not_stored(fleet: Imagined, make: Callable[[], bytes]) -> None:
    fleet.answers = [slurped(make())]
    run = fleet.play(fleet.write_playbook(COLLECT % "enrol"), "--limit", NAME)
    assert run.code == 2, run.output
    assert re.search("no record|the record is that of", run.output), run.output
    assert list(fleet.records.iterdir()) == []


def test_a_record_that_is_no_base64_is_not_stored(fleet: Imagined) -> None:
    fleet.answers = [("slurp", "", {"changed": False, "content": ["{{ 1 }}"]})]
    run = fleet.play(fleet.write_playbook(COLLECT % "enrol"), "--limit", NAME)
    assert "no record" in run.output
    assert list(fleet.records.iterdir()) == []


def test_a_record_is_stored_once_and_another_in_its_place_only_when_that_was_said(fleet: Imagined) -> None:
    playbook, path, first, other = (
        fleet.write_playbook(COLLECT % "enrol"),
        fleet.records / f"{NAME}.enrol",
        record(),
        record(),
    )
    fleet.answers = [slurped(first)]
    assert "changed=1" in fleet.play(playbook, "--limit", NAME).output
    assert path.read_bytes() == first
    assert "changed=0" in fleet.play(playbook, "--limit", NAME).output
    fleet.answers = [slurped(other)]
    assert "has other keys than" in fleet.play(playbook, "--limit", NAME).output
    assert path.read_bytes() == first
    assert fleet.play(playbook, "--limit", NAME, replace=True).code == 0
    assert path.read_bytes() == other


def test_a_node_record_stands_on_the_keys_that_were_enrolled(fleet: Imagined) -> None:
    (fleet.records / f"{NAME}.enrol").write_bytes(record())
    fleet.answers = [slurped(record())]
    run = fleet.play(fleet.write_playbook(COLLECT % "node"), "--limit", NAME)
    assert run.code == 2
    assert not (fleet.records / f"{NAME}.node").exists()


@pytest.mark.parametrize("place", ["records", "group_vars/all", "host_vars"])
def test_records_where_ansible_reads_them_as_inventory_are_refused(fleet: Imagined, place: str) -> None:
    fleet.write(edged_records=str(fleet.inventory / place))
    inventory = fleet.inventory if place == "records" else None
    for playbook in ("status", "enrol", "site", "rollout"):
        run = fleet.play(playbook, inventory=inventory)
        assert "and Ansible reads all of" in run.output, run.output
    assert fleet.called() == []


def test_records_lie_outside_the_inventory_by_themselves(fleet: Imagined) -> None:
    """Also for those who name the folder: what came from a board is not in it."""
    (fleet.records / f"{NAME}.enrol").write_bytes(INVENTORY)
    run = fleet.play("status", inventory=fleet.inventory)
    assert run.code == 0, run.output
    assert "PermitLocalCommand" not in run.output


# --- what boards say ----------------------------------------------------------------------------


def status(**change: Any) -> dict[str, Any]:
    model = {"name": "gearbox", "serving": 2, "on_trial": False, "rejected": []}
    return {"running": True, "version": "0.1.0", "degraded": [], "models": [model], "reported": {}, **change}


def said(text: str, **change: Any) -> dict[str, Any]:
    return {"changed": False, "rc": 0, "stdout": text, "stderr": "", **change}


def test_a_board_whose_facts_name_a_command_runs_nothing_here(tmp_path: Path) -> None:
    """With Ansible's default, facts are variables and win over the inventory's: `edged_command` runs on this machine."""
    if ansible_bin() is None:
        pytest.skip("no Ansible: `make hosts` installs it")
    pwned = tmp_path / "pwned"
    lie = {
        "changed": False,
        "ansible_facts": {**FACTS, "edged_command": ["touch", str(pwned)]},
        "rc": 0,
        "stdout": "[]",
    }
    own = "- hosts: boards\n  gather_facts: false\n  tasks:\n    - command: id\n    - command: {argv: '{{ edged_command }}'}\n      delegate_to: localhost\n      run_once: true\n"
    open_to_it = Imagined(tmp_path / "open", NAME, inject=True)
    open_to_it.answers = [("command", "", lie), ("setup", "", lie), ("probe", "", {**PROBE, **lie})]
    open_to_it.play(open_to_it.write_playbook(own))
    assert pwned.exists(), "the attack is one"
    pwned.unlink()
    for playbook in ("status", "enrol", "site", "rollout", "rotate", "federate", "revoke", "decommission"):
        run = open_to_it.play(playbook, edged_revoke=NAME, edged_decommission=NAME, edged_rollout_package="x.edged")
        assert "inject_facts_as_vars = false" in run.output, run.output
    closed = Imagined(tmp_path / "closed", NAME)
    closed.answers = open_to_it.answers
    for playbook in ("status", "rollout"):
        closed.play(playbook, edged_rollout_package="x.edged")
    closed.play(closed.write_playbook(own))
    assert not pwned.exists()


def test_a_board_whose_words_are_templates_is_shown_as_text(fleet: Imagined) -> None:
    pwned = fleet.path / "pwned"
    lie = "{{ lookup('ansible.builtin.pipe', 'touch " + str(pwned) + "') }}"
    told = status(
        degraded=[lie], version=lie, models=[{"name": lie, "serving": lie, "on_trial": False, "rejected": []}]
    )
    fleet.answers = [
        ("command", "dpkg-query", said(f"installed {lie}")),
        ("command", "devices", said(json.dumps([{"device": NAME, "last_seen": lie}]))),
        ("command", "status", said(json.dumps(told), stderr=lie, msg=lie)),
    ]
    run = fleet.play("status")
    assert run.code == 0, run.output
    assert "lookup(" in run.output
    probe = {**PROBE, "architecture": lie, "misowned": [lie], "installed": lie}
    fleet.answers = [("setup", "", {"ansible_facts": {**FACTS, "ansible_distribution": lie}}), ("probe", "", probe)]
    for playbook in ("enrol", "site"):
        assert "is not supported" in fleet.play(playbook, "--tags", "boards").output
    assert not pwned.exists()


def test_a_board_that_speaks_to_the_terminal_is_shown_as_text(fleet: Imagined) -> None:
    lie = "\x1b]0;title\x07\x1b[2J\u202eevil\u200b\r\nTASK [all is well]"
    fleet.answers = [
        ("command", "dpkg-query", said(f"installed {lie}")),
        ("command", "devices", said("[]")),
        ("command", "status", said(json.dumps(status(degraded=[lie])))),
    ]
    run = fleet.play("status")
    shown = json.loads(f'"{run.output}"', strict=False) if '"' not in run.output else run.output
    assert not {"\x1b", "\x07", "\u202e", "\u200b"} & set(shown)
    assert not re.search(r"\\u001b|\\u202e|\\u200b|\\r|\\n", run.output), run.output
    fleet.answers[2] = ("command", "status", {"changed": False, "failed": True, "rc": 1, "stdout": "", "stderr": lie})
    run = fleet.play("status")
    assert "\x1b" not in run.output


@pytest.mark.parametrize(
    "answer",
    [
        "[" * 100_000,
        "{",
        "[]",
        '"text"',
        json.dumps({"running": True}),
        json.dumps(status(models=3)),
        json.dumps(status(models=[{}])),
        json.dumps(status(degraded=[{}])),
        json.dumps(status(reported=[1])),
        json.dumps(status(reported={"last_result": 1e300, "results": {}})),
    ],
)
def test_a_board_whose_answer_makes_no_sense_costs_its_own_row_alone(fleet: Imagined, answer: str) -> None:
    for host in (NAME, "press-08"):
        fleet.answers.append(("command", f"status-of-{host}", said(answer)))
    rows = [{"board": NAME, "status": _parsed(answer), "revision": ""}, {"board": "press-08", "status": status()}]
    shown = fleet.play(
        fleet.write_playbook(
            "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
            '    - debug: {msg: "{{ rows | edged.fleet.status_table }}"}\n'
            "    - debug: {msg: \"{{ [{'host': 'a', 'device': 'a'}] | edged.fleet.answers({'a': {'edged_answer': {'stdout': said}}}, []) }}\"}\n"
        ),
        rows=rows,
        said=answer,
    )
    assert shown.code == 0, shown.output
    assert re.search(r"press-08 +0\.1\.0 +well +gearbox 2", shown.output), shown.output


def _parsed(answer: str) -> object:
    try:
        parsed = json.loads(answer)
    except (RecursionError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


@pytest.mark.parametrize(
    ("architecture", "release"),
    [
        ("amd64", "/../../../../../root/.ssh/id"),
        ("../../secret", "12"),
        ("arm64\n", "12"),
        ("armhf", "12"),
        ("amd64", "11"),
    ],
)
def test_a_release_that_is_a_path_names_no_file_here(fleet: Imagined, architecture: str, release: str) -> None:
    play = '- hosts: localhost\n  gather_facts: false\n  tasks:\n    - debug: {msg: "{{ a | edged.fleet.build(r) }}"}\n'
    run = fleet.play(fleet.write_playbook(play), a=architecture, r=release)
    assert "there is no package for Debian" in run.output, run.output
    assert fleet.play(fleet.write_playbook(play), a="arm64", r="13").code == 0


# --- revoked stays revoked ----------------------------------------------------------------------


def revoke(fleet: Imagined, name: str = NAME) -> None:
    run = fleet.play("revoke", edged_revoke=name)
    assert run.code == 0, run.output


def enrolled_at(fleet: Imagined) -> str:
    """Return whom hubs, brokers and aggregators would believe."""
    roles = "".join(
        f"      - {COLLECTION}/roles/{role}/{part}/main.yml\n"
        for role in ("edged_hub", "edged_broker", "edged_aggregator")
        for part in ("vars",)
    )
    play = fleet.write_playbook(
        f"- hosts: home\n  gather_facts: false\n  vars_files:\n{roles}"
        '  vars:\n    edged_hub_records: &r "{{ playbook_dir }}/records"\n    edged_broker_records: *r\n    edged_aggregator_records: *r\n'
        "    edged_hub_boards: boards\n    edged_broker_boards: boards\n    edged_aggregator_boards: boards\n"
        "  tasks:\n    - debug: {msg: \"{{ [edged_hub_enrolled | map('basename'), edged_broker_enrolled | map(attribute='device'), edged_aggregator_enrolled] }}\"}\n"
    )
    return fleet.play(play).output


@pytest.mark.parametrize("playbook", ["enrol", "site", "rollout"])
def test_a_board_that_was_revoked_stays_so(fleet: Imagined, playbook: str) -> None:
    """Also where its record lies there again: a copy was put back, or version control did."""
    (fleet.records / f"{NAME}.enrol").write_bytes(record())
    revoke(fleet)
    assert (fleet.records / "revoked" / f"{NAME}.enrol").exists()
    (fleet.records / f"{NAME}.enrol").write_bytes(record())
    (fleet.path / "called").unlink(missing_ok=True)
    what = ("--limit", NAME) if playbook == "rollout" else ("--limit", f"{NAME},hubs", "--tags", "boards")
    package = {"edged_rollout_package": "x.edged"} if playbook == "rollout" else {}
    run = fleet.play(playbook, *what, **package)
    assert "the board was revoked. If it is to come back, say so by its name" in run.output, run.output
    assert not {"apt", "copy", "command"} & set(fleet.called())


def test_hubs_brokers_and_aggregators_do_not_believe_a_revoked_board_whose_record_lies_there_again(
    fleet: Imagined,
) -> None:
    for name in (NAME, "press-08"):
        (fleet.records / f"{name}.enrol").write_bytes(record(name))
        (fleet.records / f"{name}.node").write_bytes(b"")
    assert enrolled_at(fleet).count(NAME) == 3
    revoke(fleet)
    (fleet.records / f"{NAME}.enrol").write_bytes(record())
    said_now = enrolled_at(fleet)
    assert (said_now.count(NAME), said_now.count("press-08")) == (0, 3), said_now


def test_a_record_of_a_revoked_board_is_not_collected(fleet: Imagined) -> None:
    revoke(fleet)
    fleet.answers = [slurped(record())]
    assert "was revoked" in fleet.play(fleet.write_playbook(COLLECT % "enrol"), "--limit", NAME).output
    assert not (fleet.records / f"{NAME}.enrol").exists()


def test_a_revoked_board_comes_back_when_a_person_names_it(fleet: Imagined) -> None:
    revoke(fleet)
    assert "the board was revoked" in fleet.play("enrol", "--tags", "boards", edged_readmit="press-08").output
    assert "the board was revoked" not in fleet.play("enrol", "--tags", "boards", edged_readmit=NAME).output
    assert list((fleet.records / "revoked").glob("*.enrol")) == []


@pytest.mark.parametrize("name", ["../hosts", "press-99", ""])
def test_revoke_wants_a_board_that_there_is(fleet: Imagined, name: str) -> None:
    assert "wants a board of the inventory" in fleet.play("revoke", edged_revoke=name).output
    assert not list(fleet.records.rglob("*.enrol"))


# --- what is asked for --------------------------------------------------------------------------


def test_misspelt_variables_are_refused_before_anything_starts(fleet: Imagined) -> None:
    fleet.write(edged_versoin="0.1.0-1", edged_roll_out_soak=3)
    for playbook in ("site", "enrol", "rollout", "status"):
        run = fleet.play(playbook)
        assert "edged_versoin is no variable of this collection: edged_version?" in run.output, run.output
        assert "edged_roll_out_soak is no variable of this collection" in run.output
    assert fleet.called() == []


def test_names_that_are_paths_topics_or_two_boards_are_refused(fleet: Imagined) -> None:
    fleet.write("boards", edged_device="../../etc/passwd")
    run = fleet.play("site")
    assert "../../etc/passwd is not a name: set edged_device" in run.output, run.output
    assert "2 hosts of boards are called ../../etc/passwd" in run.output


def test_enrol_of_some_boards_does_not_leave_out_their_hub(fleet: Imagined) -> None:
    assert (
        f"--limit leaves out home, which must learn of it: --limit '{NAME},hubs'"
        in fleet.play("enrol", "--limit", NAME).output
    )
    assert fleet.called() == []
    assert "leaves out" not in fleet.play("enrol", "--limit", f"{NAME},hubs").output


def test_what_is_missing_here_is_said_before_anything_starts(fleet: Imagined) -> None:
    fleet.deb.unlink()
    fleet.write(edged_version="0.1.0-1", edged_command=["no-edged"], edged_ca_file="/nowhere/ca.crt")
    run = fleet.play("enrol")
    assert "has no package of edged 0.1.0-1: make deb" in run.output, run.output
    assert "this machine has no no-edged" in run.output
    assert f"edged_ca_file of {NAME}: there is no file /nowhere/ca.crt" in run.output
    assert fleet.called() == []


def test_a_dry_run_on_fresh_hosts_says_what_would_be_done(fleet: Imagined) -> None:
    probe = {**PROBE, "clock": 2e9}
    fleet.answers = [("setup", "", {"ansible_facts": FACTS}), ("probe", "", probe)]
    fleet.write("hubs", edged_hub_upstream_url="mqtts://broker.local:8883")
    file = str(fleet.deb)
    fleet.write(
        "brokers",
        **dict.fromkeys(("edged_ca_file", "edged_broker_certificate_file", "edged_broker_key_file"), file),
        edged_broker_secret="s" * 32,
    )
    run = fleet.play("enrol", "--check", edged_clock_tolerance=10**9)
    assert run.code == 0, run.output
    run = fleet.play("site", "--check", edged_clock_tolerance=10**9)
    assert run.code == 0, run.output
    assert f"{NAME}: edged would be installed and configured" in run.output
    assert "home: Mosquitto would be installed and configured" in run.output


def test_a_package_is_named_from_where_one_stands(fleet: Imagined) -> None:
    role = COLLECTION / "roles" / "edged"
    play = fleet.write_playbook(
        f"- hosts: localhost\n  gather_facts: false\n  vars_files: [{role}/vars/main.yml]\n"
        '  tasks:\n    - debug: {msg: "{{ edged_rollout_file }}"}\n'
    )
    assert f'"{fleet.path}/gearbox-1.edged"' in fleet.play(play, edged_rollout_package="gearbox-1.edged").output


@pytest.mark.parametrize("installed", ["0.2.0-1~deb12", "0.0.9-1~deb12"])
@pytest.mark.parametrize("moves", ["no", "up", "anywhere"])
def test_versions_move_by_rollout_alone(fleet: Imagined, installed: str, moves: str) -> None:
    """Neither an older inventory nor a newer one moves a board: `site` and `enrol` install where nothing is."""
    fleet.answers = [
        ("setup", "", {"ansible_facts": FACTS}),
        ("probe", "", {**PROBE, "installed": installed}),
    ]
    play = (
        "- hosts: boards\n  tasks:\n    - edged.fleet.probe: {state: /x, user: x, record: /x}\n      register: edged_probe\n"
        "    - include_role: {name: edged.fleet.edged, tasks_from: package}\n"
    )
    more = {} if moves == "no" else {"edged_package_moves": moves}
    run = fleet.play(fleet.write_playbook(play), "--limit", NAME, **more)
    assert run.code == 0, run.output
    is_moved = moves == "anywhere" or (moves == "up" and installed.startswith("0.0"))
    assert ("apt" in fleet.called()) is is_moved, run.output
    assert (f"has edged {installed}, and edged_version says 0.1.0-1: nothing is done" in run.output) is not is_moved


def test_every_task_is_bounded_in_time() -> None:
    for playbook in (COLLECTION / "playbooks").glob("*.yml"):
        text = playbook.read_text()
        assert text.count("\n  hosts: ") == text.count("\n  timeout: "), playbook
    assert "said=$(timeout 60 edged check" in (COLLECTION / "roles/edged/tasks/configure.yml").read_text()


def test_a_board_that_never_answers_holds_nobody_up_for_ever(fleet: Imagined) -> None:
    fleet.answers = [("command", "status", {"sleep": 100})]
    run = fleet.play("status", "--limit", NAME, edged_timeout=3)
    assert "imed out" in run.output or "timeout" in run.output.lower(), run.output
