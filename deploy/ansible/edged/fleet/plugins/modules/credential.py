"""Ansible module: a systemd credential with a given content."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: credential
short_description: Encrypt a secret to a machine, as a systemd credential
description:
  - The secret arrives over Ansible's connection and is written encrypted by C(systemd-creds), under the machine's key
    and, where there is one, its TPM.
  - A credential that decrypts to the same secret stays as it is.
options:
  name:
    description: Name of the credential, and of its file.
    type: str
    required: true
  secret:
    description: What it holds.
    type: str
    required: true
  directory:
    description: Where the file stands.
    type: path
    default: /etc/edged/credentials
author:
  - The edged project
attributes:
  check_mode:
    support: full
    description: Tells whether it would change.
"""

EXAMPLES = """
- name: Give the board its password
  edged.fleet.credential:
    name: mqtt-password
    secret: "{{ vaulted_password }}"
  no_log: true
"""

RETURN = """
path:
  description: The encrypted file.
  returned: always
  type: str
"""


def main() -> None:
    """Do what the documentation says."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "secret": {"type": "str", "required": True, "no_log": True},
            "directory": {"type": "path", "default": "/etc/edged/credentials"},
        },
        supports_check_mode=True,
    )
    name, secret, directory = module.params["name"], module.params["secret"], Path(module.params["directory"])
    path = directory / name
    if _content(module, name, path) == secret:
        module.exit_json(changed=False, path=str(path))
    if not module.check_mode:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_name(f".{name}.new")
        command = ["systemd-creds", "encrypt", f"--name={name}", "-", str(new)]
        module.run_command(command, data=secret, binary_data=True, check_rc=True)
        new.chmod(0o600)
        module.atomic_move(str(new), str(path))
    module.exit_json(changed=True, path=str(path))


def _content(module: AnsibleModule, name: str, path: Path) -> str | None:
    """Return what is there now; None for nothing, or for what this machine cannot decrypt."""
    if not path.exists():
        return None
    code, out, _ = module.run_command(["systemd-creds", "decrypt", f"--name={name}", str(path), "-"])
    return out if code == 0 else None


if __name__ == "__main__":
    main()
