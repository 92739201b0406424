"""A stand-in for the agent of a Windows guest, which cannot run here.

It says of itself that it is one, has no setsid, sh or mv, takes -EncodedCommand apart as
powershell.exe does, and answers in the frame that the script asks for. What a real PowerShell makes
of a script it does not know: tests say what it puts out.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

from tests.direct.agent.played import Played

__all__ = ["WindowsAgent"]

_MOST_COMMAND_LINE = 32_767
_NOT_FOUND = (
    "Guest agent command failed, error was 'Failed to execute child process "
    "(No such file or directory)'"
)


class WindowsAgent:
    """Answers as one does. ``outcome`` gives, for the text of a script, what it puts out."""

    def __init__(self, outcome: Callable[[str], dict[str, Any]] | None = None):
        self.scripts: list[str] = []
        self.started: list[list[str]] = []
        self.files: dict[str, bytearray] = {}
        self._outcome = outcome or (lambda _: {})
        self._ended: dict[int, dict[str, Any]] = {}
        self._handles: dict[int, str] = {}

    def __call__(self, agent: Played) -> None:
        while True:
            request = agent.request()
            name, given = request["execute"], request.get("arguments", {})
            if name == "guest-sync-delimited":
                agent.synced(given["id"])
                continue
            method = getattr(self, name.removeprefix("guest-").replace("-", "_"))
            try:
                agent.reply({"return": method(given), "id": request["id"]})
            except OSError as error:
                told = {"class": "GenericError", "desc": str(error)}
                agent.reply({"error": told, "id": request["id"]})

    def ping(self, _given: dict[str, Any]) -> dict[str, str]:
        return {}

    def get_osinfo(self, _given: dict[str, Any]) -> dict[str, str]:
        return {"id": "mswindows", "name": "Microsoft Windows", "machine": "x86_64"}

    def exec(self, given: dict[str, Any]) -> dict[str, int]:
        words = [given["path"], *given.get("arg", [])]
        if words[0] in {"setsid", "sh", "env"}:
            raise OSError(_NOT_FOUND)
        assert sum(len(word) + 3 for word in words) < _MOST_COMMAND_LINE
        self.started.append(words)
        pid = 1000 + len(self.started)
        self._ended[pid] = {"exited": True, "exitcode": 0}
        if words[0] == "powershell.exe":
            assert words[1:-1] == ["-NoLogo", "-NoProfile", "-NonInteractive", "-EncodedCommand"]
            script = base64.b64decode(words[-1]).decode("utf-16-le")
            if "In.ReadToEnd()" in script:
                script = base64.b64decode(base64.b64decode(given["input-data"])).decode()
            self.scripts.append(script)
            self._ended[pid] |= self._powershell(script)
        elif words[0] == "cmd.exe":
            self._ended[pid]["out-data"] = _encoded(b"Path=C:\\Windows\r\nOS=Windows_NT\r\n")
        elif words[0] == "sleeps.exe":
            self._ended[pid] = {"exited": False}
        elif words[0] == "taskkill":
            self._ended[int(words[-1])] = {"exited": True, "exitcode": 1}
        else:
            self._ended[pid]["out-data"] = _encoded(b"some\r\n")
        return {"pid": pid}

    def exec_status(self, given: dict[str, Any]) -> dict[str, Any]:
        return self._ended[given["pid"]]

    def file_open(self, given: dict[str, Any]) -> int:
        assert given["mode"] in {"rb", "wb"}
        if given["mode"] == "wb":
            self.files[given["path"]] = bytearray()
        elif given["path"] not in self.files:
            raise OSError("failed to open file: The system cannot find the file specified.")
        self._handles[len(self._handles) + 1] = given["path"]
        self._position = 0
        return len(self._handles)

    def file_write(self, given: dict[str, Any]) -> dict[str, Any]:
        data = base64.b64decode(given["buf-b64"])
        self.files[self._handles[given["handle"]]] += data
        return {"count": len(data), "eof": False}

    def file_read(self, given: dict[str, Any]) -> dict[str, Any]:
        data = self.files[self._handles[given["handle"]]][self._position :][: given["count"]]
        self._position += len(data)
        return {"count": len(data), "buf-b64": _encoded(data), "eof": not data}

    def file_seek(self, given: dict[str, Any]) -> dict[str, Any]:
        end = len(self.files[self._handles[given["handle"]]])
        self._position = given["offset"] + (end if given["whence"] == 2 else 0)
        return {"position": self._position, "eof": False}

    def file_flush(self, _given: dict[str, Any]) -> dict[str, Any]:
        return {}

    def file_close(self, _given: dict[str, Any]) -> dict[str, Any]:
        return {}

    def _powershell(self, script: str) -> dict[str, Any]:
        moved = re.search(r"Move-Item .*-LiteralPath '(.*)' -Destination '(.*)' -Err", script)
        if moved:
            part, target = (each.replace("''", "'") for each in moved.groups())
            self.files[target] = self.files.pop(part)
        mark = re.search(r"Write\('(<vmconnect-[0-9a-f]{16}>)' \+ \$__json \+ '\1'\)", script)
        assert mark is not None
        outcome = {"objects": [], "errors": [], "failed": None, **self._outcome(script)}
        raw, code = outcome.pop("raw", None), outcome.pop("exit_code", 0)
        text = outcome.pop("text", "")
        stderr = outcome.pop("stderr", "")
        body = json.dumps(outcome) if raw is None else raw
        out = f"{text}{mark[1]}{body}{mark[1]}\r\n" if body else text
        return {
            "exitcode": code,
            "out-data": _encoded(out.encode()),
            "err-data": _encoded(stderr.encode()),
        }


def _encoded(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode()
