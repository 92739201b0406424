"""Looking for a secret where it must not be: in what is printed, and in whatever can be reached."""

from __future__ import annotations

import base64
import contextlib
import gc
import io
import logging
import subprocess
import threading
import time
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.traceback import Traceback

__all__ = ["argv_seen", "assert_hidden", "assert_hidden_in", "everything_logged", "reachable"]

_NOT_FOLLOWED = (
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.CodeType,
    type,
)
_MOST = 1_000_000


def forms(secret: str) -> list[str]:
    """Return the ways in which a secret may be shown."""
    data = secret.encode()
    return [secret, repr(data)[2:-1], base64.b64encode(data).decode().rstrip("="), data.hex()]


def assert_hidden(secret: str, text: str, where: object = "") -> None:
    for form in forms(secret):
        place = text.find(form)
        assert place < 0, f"{where}: {text[max(0, place - 500) : place + 100]}"


def assert_hidden_in(secret: str, error: BaseException) -> None:
    """Nothing that shows an error, with all variables of all calls, shows the secret."""
    text = io.StringIO()
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame):
        trace = trace.tb_next
    shown = Traceback.from_exception(
        type(error), error, trace, show_locals=True, locals_max_string=1 << 20
    )
    Console(file=text, width=400).print(shown)
    assert_hidden(secret, text.getvalue(), "rich")
    assert_hidden(secret, "".join(traceback.format_exception(error)), "traceback")
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        pending += [each.__cause__, each.__context__]
        assert_hidden(secret, f"{each!r} {each} {each.args!r} {vars(each)!r}", "the error")
        for frame, line in traceback.walk_tb(each.__traceback__):
            where = f"{frame.f_code.co_filename}:{line}"
            if _is_ours(frame):
                continue
            for name, value in frame.f_locals.items():
                assert_hidden(secret, repr(value), f"{where} {name}")


def _is_ours(frame: types.FrameType) -> bool:
    """Whether it is a call of the test's, which knows the secret."""
    return "/tests/" in frame.f_code.co_filename


def reachable(*roots: object) -> Iterator[object]:
    """Yield all objects that can be got at from these; not the modules' own."""
    pending, seen = [*roots], {id(each) for each in roots}
    kept: list[Any] = []  # So that no id is used twice.
    while pending:
        each = pending.pop()
        kept.append(each)
        yield each
        for other in gc.get_referents(each):
            if id(other) not in seen and not isinstance(other, _NOT_FOLLOWED):
                if isinstance(other, dict) and "__builtins__" in other:
                    continue  # A module's variables.
                seen.add(id(other))
                pending.append(other)
        assert len(seen) < _MOST


@contextlib.contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """Give what is logged, by anybody, down to DEBUG."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    loggers = [logging.getLogger(), logging.getLogger("paramiko"), logging.getLogger("vmconnect")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.DEBUG)
    try:
        yield text
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.removeHandler(handler)
            each.setLevel(level)


@contextlib.contextmanager
def argv_seen(process: subprocess.Popen[Any]) -> Iterator[list[bytes]]:
    """Give the command lines of a process and all its descendants, while it runs."""
    found: set[bytes] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for pid in _family(process.pid):
                with contextlib.suppress(OSError):
                    found.add(Path(f"/proc/{pid}/cmdline").read_bytes())
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    lines: list[bytes] = []
    try:
        yield lines
    finally:
        over.set()
        thread.join()
        lines += found


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))
