"""What keeps plaintext in RAM, and nowhere else."""

from edged.base.memory.buffer import SecretBuffer, wipe
from edged.base.memory.code import release_code
from edged.base.memory.harden import Protection, Protections, harden
from edged.base.memory.libc import trim

__all__ = ["Protection", "Protections", "SecretBuffer", "harden", "release_code", "trim", "wipe"]
