"""What a command in a guest gave."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Result"]


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one command.

    ``exit_code`` is None when a signal ended the command; ``signal`` is then its name without
    ``SIG`` (RFC 4254, section 6.10). ``stdout`` and ``stderr`` are what the command wrote, empty
    where a sink took it; ``seconds`` is how long it took as seen from here.
    """

    argv: tuple[str, ...]
    exit_code: int | None
    signal: str | None
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the command ended with exit code 0."""
        return self.exit_code == 0

    @property
    def text(self) -> str:
        """The standard output as UTF-8, undecodable bytes replaced."""
        return self.stdout.decode("utf-8", "replace")
