"""The exit code that says how a command in a guest ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmconnect.direct import Result

__all__ = ["FAILED", "exit_code"]

FAILED = 255
"""As ssh: every other code is the guest's."""


def exit_code(result: Result) -> int:
    """Return the command's exit code, 128 + N when signal N ended it, as a shell has it."""
    if result.exit_code is not None:
        return result.exit_code
    import signal

    number = getattr(signal, f"SIG{result.signal}", None)
    return 128 + number if isinstance(number, signal.Signals) else FAILED
