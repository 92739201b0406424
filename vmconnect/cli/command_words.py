"""Telling a guest's command from our own options and operands, as ssh does without ``--``."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["dashed"]


def dashed(
    arguments: list[str], start: int, valued: Collection[str], operands: int = 1
) -> list[str]:
    """Put ``--`` before the first word that is neither an option nor one of our operands.

    The words before ``start`` are left alone, and so is a line that has a ``--``. ``valued`` are
    the options whose value is the next word; ``operands`` come before the command.
    """
    words = iter(range(start, len(arguments)))
    for place in words:
        word = arguments[place]
        if word == "--":
            break
        if word in valued:
            next(words, None)
        elif not word.startswith("-") or word == "-":
            if not operands:
                return [*arguments[:place], "--", *arguments[place:]]
            operands -= 1
    return arguments
