"""What a command in a guest gave: as an exit code, and as JSON."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmconnect.direct import Result

__all__ = ["FAILED", "as_json", "exit_code"]

FAILED = 255
"""As ssh: every other code is the guest's."""


def exit_code(result: Result) -> int:
    """Return the command's exit code, 128 + N when signal N ended it, as a shell has it."""
    if result.exit_code is not None:
        return result.exit_code
    import signal

    number = getattr(signal, f"SIG{result.signal}", None)
    return 128 + number if isinstance(number, signal.Signals) else FAILED


def as_json(machine: str, result: Result) -> dict[str, object]:
    """Return a command's result as the fields of a JSON object."""
    fields: dict[str, object] = {
        "machine": machine,
        "argv": list(result.argv),
        "exit_code": result.exit_code,
        "signal": result.signal,
        "seconds": round(result.seconds, 6),
    }
    for name, data in (("stdout", result.stdout), ("stderr", result.stderr)):
        try:
            fields[name] = data.decode()
        except UnicodeDecodeError:
            fields[f"{name}_base64"] = base64.b64encode(data).decode()
    return fields
