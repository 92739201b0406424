"""A function of ours that a guest's Python calls: arguments and result go as JSON.

::

    @vmconnect.in_guest
    def free(path):
        return shutil.disk_usage(path).free

    guest.call(free, "/srv")

Its source goes, nothing else of this process: modules that it names are imported there, all other
names must be its own. It is sent on the standard input and no file is made; what it prints is on
its standard error.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any, overload

from vmconnect.direct.pump import Sink
from vmconnect.direct.python_start import reading_call
from vmconnect.direct.result import Result
from vmconnect.direct.runner import Runner
from vmconnect.errors import GuestError, GuestPythonError, UnsupportedError
from vmconnect.operation import Operation

__all__ = ["GuestFunction", "in_guest"]

_MOST_BYTES = 64 << 20
_SHOWN_CHARACTERS = 500
_NOT_FOUND = 127


@dataclass(frozen=True, slots=True)
class GuestFunction:
    """The source of a function, and how a guest is to run it.

    ``imports`` are modules by the names that the function has for them. ``python`` is what runs it
    there; ``printed`` takes what it prints. Called as it is, it runs here.
    """

    source: str
    name: str = "main"
    file: str = "<function>"
    imports: dict[str, str] = field(default_factory=dict)
    python: str = "python3"
    timeout: float | None = None
    printed: Sink | None = None
    here: Callable[..., Any] | None = None

    @classmethod
    def of(cls, function: Callable[..., Any] | str, **options: Any) -> GuestFunction:
        """Return the function; of a text it is the one that is called ``main``.

        Raises UnsupportedError for what cannot be sent: no plain function with a source, or one
        that uses variables of what is around it.
        """
        if isinstance(function, GuestFunction):
            return function
        if isinstance(function, str):
            return cls(textwrap.dedent(function), **options)
        return cls(*_sourced(function), _modules(function), here=function, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it here."""
        if self.here is None:
            raise UnsupportedError("a function that is a text runs in guests alone")
        return self.here(*args, **kwargs)

    def on(self, guest: Runner, *args: Any, **kwargs: Any) -> Any:
        """Call it in a guest and return its result.

        Raises GuestPythonError for what it raised there, with the traceback; GuestError where there
        is no Python, or one that does not answer as it should; UnsupportedError for arguments that
        JSON has no words for; what `Guest.run` raises.
        """
        call = {"source": self.source, "name": self.name, "file": self.file}
        try:
            data = json.dumps(
                {**call, "imports": self.imports, "args": args, "kwargs": kwargs}
            ).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise UnsupportedError(f"the arguments cannot be sent as JSON: {error}") from error
        kept = bytearray()

        def keep(more: bytes) -> None:
            if len(kept) + len(more) > _MOST_BYTES:
                raise GuestError(f"the result is larger than {_MOST_BYTES >> 20} MiB")
            kept.extend(more)

        argv = [self.python, "-c", reading_call(len(data))]
        result = guest.run(
            argv,
            stdin=data,
            stdout=keep,
            stderr=self.printed,
            timeout=self.timeout,
            operation=Operation("call", {"function": self.name}),
        )
        return self._answer(result, bytes(kept))

    def _answer(self, result: Result, data: bytes) -> Any:
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._no_answer(result) from error
        if isinstance(answer, dict) and "result" in answer:
            return answer["result"]
        match answer:
            case {"error": str(kind), "message": str(message), "traceback": str(trace)}:
                raise GuestPythonError(message, kind=kind, traceback=trace)
        raise self._no_answer(result)

    def _no_answer(self, result: Result) -> GuestError:
        said = result.stderr.decode("utf-8", "replace").strip()[-_SHOWN_CHARACTERS:]
        if result.exit_code == _NOT_FOUND:
            return GuestError(f"there is no {self.python} in the guest", hint=said or None)
        how = f"by SIG{result.signal}" if result.signal else f"with exit code {result.exit_code}"
        return GuestError(f"its Python ended {how} and gave no result", hint=said or None)


@overload
def in_guest(function: Callable[..., Any], /) -> GuestFunction: ...
@overload
def in_guest(**options: Any) -> Callable[[Callable[..., Any]], GuestFunction]: ...
def in_guest(
    function: Callable[..., Any] | None = None, /, **options: Any
) -> GuestFunction | Callable[[Callable[..., Any]], GuestFunction]:
    """Make a function one that guests can call: a decorator, with `GuestFunction`'s options.

    Raises UnsupportedError as `GuestFunction.of` does.
    """
    if function is not None:
        return GuestFunction.of(function, **options)
    return lambda function: GuestFunction.of(function, **options)


def _sourced(function: Callable[..., Any]) -> tuple[str, str, str]:
    """Return a function's source, its lines numbered as they are there, its name, and its file."""
    if not isinstance(function, FunctionType) or function.__name__ == "<lambda>":
        raise UnsupportedError(f"{function!r} is no function with a name", hint="use def")
    name = function.__name__
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise UnsupportedError(f"{name} is asynchronous, and nobody there awaits it")
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError) as error:
        raise UnsupportedError(
            f"the source of {name} is not to be had", hint="give it as a text"
        ) from error
    text = textwrap.dedent("".join(lines))
    # Without its decorators, of which the guest knows nothing.
    skipped = ast.parse(text).body[0].lineno - 1
    body = "".join(text.splitlines(keepends=True)[skipped:])
    return "\n" * (first + skipped - 1) + body, name, function.__code__.co_filename


def _modules(function: Callable[..., Any]) -> dict[str, str]:
    """Return the modules that a function names; there must be nothing else of what is around it."""
    used = inspect.getclosurevars(function)
    around = {**used.nonlocals, **used.globals}
    for name, value in around.items():
        if not isinstance(value, ModuleType) and value is not function:
            raise UnsupportedError(
                f"{function.__name__} uses {name}, which is not its own",
                hint="give it as an argument",
            )
    return {name: value.__name__ for name, value in around.items() if isinstance(value, ModuleType)}
