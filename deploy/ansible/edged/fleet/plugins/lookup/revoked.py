"""The lookup of boards that were revoked."""

from __future__ import annotations

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.edged.fleet.plugins.plugin_utils.revoked import revoked

DOCUMENTATION = """
name: revoked
short_description: Boards that were revoked, or given away, and not taken back since
description:
  - Names of devices, in order. The folder C(revoked) of the records says so.
options:
  _terms:
    description: Folder of the records.
    type: list
    elements: path
    required: true
"""


class LookupModule(LookupBase):
    """The class that Ansible looks for."""

    def run(self, terms: list[str], variables: Any = None, **_: Any) -> list[str]:  # noqa: ANN401, ARG002  Ansible's
        """Return the names."""
        return [name for folder in terms for name in revoked(folder)]
