"""A person's terminal: a real tmux with a real bash, whose screen can be looked at."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from vmconnect.deadline import Deadline

__all__ = ["PROMPT", "Tmux", "tmux"]

WAIT = 60.0
PROMPT = "here$ "


class Tmux:
    """One window; keys go in, the screen is read."""

    def __init__(self, directory: Path):
        self._socket = directory / "tmux"

    def run(self, *words: str) -> str:
        """Run a command of tmux's."""
        return subprocess.run(
            ["tmux", "-S", str(self._socket), "-f", "/dev/null", *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=WAIT,
        ).stdout

    def keys(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        self.run("send-keys", *keys)

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        self.run("send-keys", "-l", line)
        self.keys("Enter")

    @property
    def screen(self) -> list[str]:
        """The lines that are shown, to the last that is not empty."""
        return self.run("capture-pane", "-p").rstrip("\n").split("\n")

    def wait_for(self, text: str) -> list[str]:
        """Wait until the screen shows ``text``, and return its lines."""
        deadline = Deadline(WAIT)
        while text not in "\n".join(lines := self.screen):
            deadline.check(f"waiting for {text!r} among {lines}")
            time.sleep(0.02)
        return lines

    def wait_line(self, text: str) -> list[str]:
        """Wait until the last line on the screen is ``text``, and return all."""
        deadline = Deadline(WAIT)
        while (lines := self.screen)[-1].rstrip() != text.rstrip():
            deadline.check(f"waiting for the last line {text!r} of {lines}")
            time.sleep(0.02)
        return lines

    def wait_rows(self, number: int) -> list[str]:
        """Wait until so many rows, and no less, have something in them."""
        deadline = Deadline(WAIT)
        while len(lines := self.screen) != number or not lines[-1]:
            deadline.check(f"waiting for {number} rows of {lines}")
            time.sleep(0.02)
        return lines

    def flags(self) -> str:
        """What a program has changed of the terminal: 1 for the cursor, 0 for all else."""
        names = ["cursor_flag", "alternate_on", "mouse_any_flag", "mouse_button_flag"]
        names += ["mouse_standard_flag", "keypad_flag", "keypad_cursor_flag"]
        return self.run("display-message", "-p", " ".join(f"#{{{name}}}" for name in names)).strip()

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size."""
        self.run("resize-window", "-x", str(columns), "-y", str(rows))


@contextlib.contextmanager
def tmux(columns: int = 100, rows: int = 30) -> Iterator[Tmux]:
    """Give a terminal with a prompt on it."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        terminal = Tmux(Path(name))
        size = ("-x", str(columns), "-y", str(rows))
        shell = ("env", f"PS1={PROMPT}", "bash", "--norc", "--noprofile")
        terminal.run("new-session", "-d", *size, *shell)
        try:
            terminal.wait_line(PROMPT)
            yield terminal
        finally:
            terminal.run("kill-server")
