"""Ansible module: whether the control machine is in order. The action of the same name does the work."""

from __future__ import annotations

DOCUMENTATION = """
module: control
short_description: Say whether the machine that runs Ansible, and what was asked of it, are in order
description:
  - Nothing is changed, and nothing is connected to.
  - It refuses a setup in which a board's answers set variables of the fleet, records where Ansible reads them as
    inventory, variables that nothing reads, and names that are none.
options:
  command:
    description: Whether edged has to be there.
    type: bool
    default: false
  package:
    description: Whether a Debian package of I(edged_version) has to be there.
    type: bool
    default: false
  files:
    description: Whether the files that the inventory names have to be there.
    type: bool
    default: false
  whole:
    description: Groups of which C(--limit) may leave out nobody.
    type: list
    elements: str
    default: []
author:
  - The edged project
attributes:
  check_mode:
    support: full
    description: It only looks.
"""

EXAMPLES = """
- name: Look before anything starts
  edged.fleet.control:
    command: true
    whole: [hubs]
"""

RETURN = """
"""
