"""Ansible module: a record from a board, hub or aggregator. The action of the same name does the work."""

from __future__ import annotations

DOCUMENTATION = """
module: collect
short_description: Collect a record from a board, hub or aggregator
description:
  - What comes is checked on the machine that runs Ansible before it is stored there. It has the size, the shape and a
    valid signature of a record, and is that of the board which was asked.
  - A record of other keys than the one that is there is refused, and so is a board that was revoked.
options:
  src:
    description: The record, where the task runs.
    type: path
    required: true
  dest:
    description: Where it is stored on the machine that runs Ansible. C(.enrol) is a board's, C(.node) its node record,
      C(.pub) that of a hub or an aggregator.
    type: path
    required: true
  name:
    description: The name that has to stand in it.
    type: str
    required: true
  command:
    description: Command of edged on the machine that runs Ansible, which checks the record.
    type: list
    elements: str
    required: true
  replace:
    description: Whether it may take the place of a record of other keys.
    type: bool
    default: false
author:
  - The edged project
attributes:
  check_mode:
    support: full
    description: Tells whether it would store it.
"""

EXAMPLES = """
- name: Collect its record
  edged.fleet.collect:
    src: /var/lib/edged/keystore/device.enrol
    dest: records/press-07.enrol
    name: press-07
    command: [edged]
"""

RETURN = """
"""
