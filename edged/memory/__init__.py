"""What keeps plaintext in RAM, and nowhere else."""

from edged.memory.buffer import SecretBuffer, wipe
from edged.memory.code import release_code
from edged.memory.harden import Protection, Protections, harden
from edged.memory.libc import trim

__all__ = ["Protection", "Protections", "SecretBuffer", "harden", "release_code", "trim", "wipe"]
