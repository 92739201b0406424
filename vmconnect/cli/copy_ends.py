"""What a person types for the ends of a copy: ``PATH`` here, ``TARGET:PATH`` in a guest."""

from __future__ import annotations

from dataclasses import dataclass

from vmconnect.errors import TargetError

__all__ = ["CopyEnd", "read_end"]

# With these a target goes on after its colon.
_SCHEMES = frozenset(
    {"qemu", "ch", "fc", "libvirt", "vnc", "vnc+tls", "vnc+unix", "ws", "wss", "ssh"}
)


@dataclass(frozen=True, slots=True)
class CopyEnd:
    """A path, and the target whose guest it is in; None for this host."""

    target: str | None
    path: str


def read_end(text: str) -> CopyEnd:
    """Read one end; raises TargetError.

    As scp has it, what has a slash before its first colon is a path here: ``./a:b``. A target with
    a colon or a slash in it stands in brackets: ``[qemu:/run/web01.qmp]:/srv``. A path that begins
    with ``~/``, or with no slash, is in the user's home there.
    """
    if text.startswith("["):
        target, bracket, path = text[1:].partition("]:")
        if bracket and target:
            return CopyEnd(target, _home(path))
    before, colon, path = text.partition(":")
    if not colon or "/" in before or not before:
        return CopyEnd(None, text)
    if before in _SCHEMES or before.startswith(("qemu+", "libvirt+")):
        raise TargetError(
            f"{text!r} does not say where its target ends", hint=f"[TARGET]:PATH, as [{text}]:/tmp"
        )
    return CopyEnd(before, _home(path))


def _home(path: str) -> str:
    return "." if path in {"", "~", "~/"} else path.removeprefix("~/")
