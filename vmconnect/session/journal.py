"""What sessions leave in the journal.

Whoever opens a channel by a `Session`, or acts by a hypervisor of `hypervisor_of`, leaves entries:
the command line and the Python API alike. How they are written is `vmconnect.journal`'s.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from vmconnect.channel import Channel, ChannelState, StateChange
from vmconnect.journal.writer import command_words, write
from vmconnect.operation import Operation, Operations
from vmconnect.secret import Secret
from vmconnect.streams import WebSocket

if TYPE_CHECKING:
    from vmconnect.hypervisor import Hypervisor, Machine

__all__ = ["journalled", "journalled_hypervisor", "note_operations"]

P = ParamSpec("P")
C = TypeVar("C", bound=Channel)
Details = dict[str, Any]


class _OfMachine(Protocol):
    @property
    def machine(self) -> Machine: ...


S = TypeVar("S", bound=_OfMachine)


def journalled(
    kind: str, opening: str, details: Callable[[Any], Details]
) -> Callable[[Callable[Concatenate[S, P], C]], Callable[Concatenate[S, P], C]]:
    """Let a session's method that opens a channel leave entries, and the channel after it.

    ``kind`` is what the channel is called in them, ``opening`` what opening it is; ``details`` says
    of the channel how it was opened.
    """

    def decorate(method: Callable[Concatenate[S, P], C]) -> Callable[Concatenate[S, P], C]:
        @functools.wraps(method)
        def open_channel(session: S, /, *args: P.args, **kwargs: P.kwargs) -> C:
            _conceal(kwargs)
            machine = session.machine
            with _noting(f"{kind}.{opening}", machine) as noted:
                channel = method(session, *args, **kwargs)
                noted.update(details(channel))
            notes = _ChannelNotes(kind, opening, machine, details)
            channel.operations.subscribe(notes.take_operation)
            channel.on_state(functools.partial(notes.take_change, channel))
            return channel

        return open_channel

    return decorate


def note_operations(kind: str, operations: Operations, machine: Machine) -> None:
    """Let everything that is done over something leave an entry; it is called ``kind`` in them."""
    operations.subscribe(_ChannelNotes(kind, "", machine, lambda _: {}).take_operation)


def journalled_hypervisor(hypervisor: Hypervisor) -> Hypervisor:
    """Let everything that the hypervisor is told to do leave an entry, and return it."""
    for method, (what, arguments) in _ORDERS.items():
        setattr(hypervisor, method, _order(getattr(hypervisor, method), what, arguments))
    return hypervisor


class _ChannelNotes:
    """Notes what becomes of one channel, and what is done over it."""

    def __init__(
        self, kind: str, opening: str, machine: Machine, details: Callable[[Any], Details]
    ):
        self._kind = kind
        self._opening = opening
        self._machine = machine
        self._details = details
        self._since = time.monotonic()

    def take_operation(self, operation: Operation) -> None:
        details = dict(operation.details)
        if (argv := details.pop("argv", None)) is not None:
            details = {**command_words(argv), **details}
        _write(
            f"{self._kind}.{operation.name}",
            self._machine,
            operation.error,
            operation.seconds,
            details,
            sent=operation.sent,
            received=operation.received,
        )

    def take_change(self, channel: Channel, change: StateChange) -> None:
        what, details = "close", {}
        if change.after is ChannelState.READY:
            what, details = self._opening, {**self._details(channel), "again": True}
        elif change.after is ChannelState.LOST and change.before is ChannelState.READY:
            what = "lost"
        elif change.after is not ChannelState.CLOSED:
            return  # It is on its way from one of these to another.
        now = time.monotonic()
        received = None if what == self._opening else getattr(channel, "received", None)
        _write(
            f"{self._kind}.{what}",
            self._machine,
            change.reason,
            now - self._since,
            details,
            received=received,
        )
        self._since = now


# What a hypervisor can be told to do: what it is called, and which arguments are noted.
_ORDERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "power_on": ("power.on", ()),
    "power_off": ("power.off", ()),
    "shut_down": ("power.shutdown", ()),
    "reset": ("power.reset", ()),
    "pause": ("power.pause", ()),
    "resume": ("power.resume", ()),
    "save": ("power.save", ()),
    "create_checkpoint": ("checkpoint.create", ("name",)),
    "apply_checkpoint": ("checkpoint.apply", ("name",)),
    "delete_checkpoint": ("checkpoint.delete", ("name",)),
    "insert_medium": ("media.insert", ("image", "drive")),
    "eject_medium": ("media.eject", ("drive", "force")),
    "screenshot": ("screen.shot", ()),
    "send_keys": ("keys.send", ("scancodes",)),
    "open_console": ("console.handed", ()),
    "set_console_password": ("console.password", ("valid_s",)),
}


def _order(method: Callable[..., Any], what: str, arguments: tuple[str, ...]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def order(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        given = call.arguments
        _conceal(given)
        del args, kwargs  # One may be a password.
        with _noting(what, given["machine"]) as noted:
            noted.update({each: given[each] for each in arguments if each in given})
            if "scancodes" in noted:  # How many keys, and not which.
                noted["keys"] = len(noted.pop("scancodes"))
            if "image" in noted:
                noted["image"] = str(noted["image"])
            return method(*call.args, **call.kwargs)

    return order


def _conceal(arguments: dict[str, Any]) -> None:
    """Turn passwords into secrets: tracebacks show the variables of those who pass them on."""
    for name in ("password", "passphrase"):
        if isinstance(arguments.get(name), str):
            arguments[name] = Secret(arguments.pop(name))


_noting_now = threading.local()


@contextlib.contextmanager
def _noting(what: str, machine: Machine) -> Iterator[Details]:
    """Write an entry of what is done in a ``with`` block, when it is over.

    Of what is done within it on the way there is none.
    """
    details: Details = {}
    if getattr(_noting_now, "within", False):
        yield details
        return
    started = time.monotonic()
    error: BaseException | None = None
    _noting_now.within = True
    try:
        yield details
    except BaseException as raised:
        error = raised
        raise
    finally:
        _noting_now.within = False
        _write(what, machine, error, time.monotonic() - started, details)


def _write(
    what: str,
    machine: Machine,
    error: BaseException | None,
    seconds: float,
    details: Details,
    **counts: int | None,
) -> None:
    # A WebSocket's address may hold a token, which names and identities do not show.
    bare = machine.hypervisor is None and isinstance(machine.console, WebSocket)
    write(
        what,
        machine=machine.name,
        target=machine.identity if bare else machine.target,
        uuid=machine.uuid,
        error=error,
        seconds=seconds,
        details=details,
        **counts,
    )
