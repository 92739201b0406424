"""Diffie and Hellman's exchange, as Apple's and Microsoft's logins use it."""

from __future__ import annotations

import secrets

__all__ = ["exchange"]


def exchange(generator: int, modulus: int, theirs: int) -> tuple[int, int]:
    """Return our public value, and the secret that we share with who sent ``theirs``.

    Raises ValueError for numbers with which there would be no secret.
    """
    if modulus < 5 or not 1 < generator < modulus or not 1 < theirs < modulus - 1:
        raise ValueError("numbers that make no secret")
    private = 2 + secrets.randbelow(modulus - 3)
    return pow(generator, private, modulus), pow(theirs, private, modulus)
