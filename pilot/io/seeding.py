"""Randomness as a function of its purpose.

Every draw names its purpose, for example `(run seed, round, client id, "batches")`. No code reads a global generator,
so removing or reordering a client leaves the draws of all others unchanged.
"""

import hashlib

import numpy as np


def seed_for(*purpose: str | int) -> int:
    """Compute a 63-bit seed that depends on every part of `purpose` and on nothing else."""
    text = "\0".join(f"{type(part).__name__}:{part}" for part in purpose)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*purpose: str | int) -> np.random.Generator:
    """Make a NumPy generator seeded by `seed_for(*purpose)`."""
    return np.random.default_rng(seed_for(*purpose))
