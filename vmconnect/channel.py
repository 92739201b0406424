r"""The life that a console and a guest channel share.

A channel is a live relationship over a connection that may break and be made again::

    CONNECTING --> READY --> LOST --> RECONNECTING --> READY
         \            \        \            \
          +------------+--------+------------+--> CLOSED

The table below is the whole rule. `Channel` keeps the state, lets others wait for it and tells
listeners of each change; and, in a thread of its own, serves a connection to its end and makes the
next one. What a connection is and does is the business of its subclasses
(`vmconnect.vnc.Console`, `vmconnect.direct.Guest`); how one finds what to connect to, that of who
opens them.

A channel with a `Retry` comes back by itself, for as long as the reason is temporary; one without
ends with its connection.
"""

from __future__ import annotations

import contextlib
import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from vmconnect.closing import Closing
from vmconnect.deadline import CancelScope, Deadline
from vmconnect.errors import ClosedError, DeadlineError, StateError, VmconnectError
from vmconnect.operation import Operations
from vmconnect.publisher import Publisher
from vmconnect.retry import Retry
from vmconnect.state_machine import StateMachine, Table

__all__ = ["TRANSITIONS", "Channel", "ChannelState", "Lost", "StateChange"]

# How long a try to come back may take; the next one follows (seconds).
_TRY_SECONDS = 15.0


class ChannelState(enum.Enum):
    """Where a channel is in its life."""

    CONNECTING = "connecting"
    READY = "ready"
    LOST = "lost"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


_S = ChannelState

TRANSITIONS: Table[ChannelState] = {
    _S.CONNECTING: frozenset({_S.READY, _S.LOST, _S.CLOSED}),
    _S.READY: frozenset({_S.LOST, _S.CLOSED}),
    _S.LOST: frozenset({_S.RECONNECTING, _S.CLOSED}),
    _S.RECONNECTING: frozenset({_S.READY, _S.LOST, _S.CLOSED}),
    _S.CLOSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Lost:
    """What went with a connection: keys by name, commands as a shell would read them.

    ``unsent`` had been taken, and is certain not to have arrived. ``uncertain`` was sent, and
    nobody knows whether it arrived, or how it ended. All else has arrived. ``released`` was held
    down, and is not any more. What was typed may be a password: it is not in the ``repr``.
    """

    unsent: tuple[str, ...] = field(default=(), repr=False)
    uncertain: tuple[str, ...] = field(default=(), repr=False)
    released: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StateChange:
    """A channel went from one state to the next, why, and what was lost with it."""

    before: ChannelState
    after: ChannelState
    reason: VmconnectError | None = None
    lost: Lost = Lost()


Listener = Callable[[StateChange], None]


class Channel(Closing):
    """State, listeners, waiting, coming back and closing; safe to use from any thread.

    ``machine`` names the machine in errors and events. ``scope`` is cancelled by `close`; whoever
    opens a channel may give one to end the opening by.
    """

    kind: ClassVar[str] = "channel"
    """What it is called in events and in the names of its threads."""

    def __init__(self, machine: str, retry: Retry | None = None, scope: CancelScope | None = None):
        self.machine = machine
        self._retry = retry
        self._scope = scope or CancelScope()
        self._states = StateMachine("a channel", TRANSITIONS, ChannelState.CONNECTING)
        self._entering = threading.Lock()
        self._listeners: Publisher[StateChange] = Publisher(f"the {self.kind} of {machine}")
        self._thread = threading.Thread(
            target=self._live, name=f"vmconnect {self.kind} {machine}", daemon=True
        )
        self.operations = Operations()
        """What is done over it."""

    @property
    def state(self) -> ChannelState:
        """The present state."""
        return self._states.state

    @property
    def alive(self) -> bool:
        """Whether the channel is not closed; it may be lost, and come back."""
        return self._states.state is not ChannelState.CLOSED

    @property
    def reason(self) -> VmconnectError | None:
        """Why the channel is lost or closed; None while it is well or after a plain close()."""
        return self._states.because

    def on_state(self, listener: Listener) -> None:
        """Call ``listener`` after every later transition, in their order, from any thread."""
        self._listeners.subscribe(listener)

    def wait_ready(self, timeout: Deadline | float | None = None) -> None:
        """Wait until the channel is ready.

        Raises the error that ended the channel, ClosedError after a plain close, or
        DeadlineError, whose hint is why the channel is lost.
        """
        ends = (ChannelState.READY, ChannelState.CLOSED)
        came = self._states.wait_for(lambda state: state in ends, Deadline.of(timeout))
        self._check_open()
        if not came:
            reason = self.reason
            raise DeadlineError(
                f"still {self.state.value} when the time was over",
                machine=self.machine,
                hint=reason.message if reason else None,
            )

    def hurry(self) -> None:
        """Try at once to come back, if it is lost: something has changed."""
        if self._retry is not None:
            self._retry.wake()

    def close(self) -> None:
        """End the channel and what it holds, whatever it is in the midst of.

        Again and again if one likes. Returns when nothing of it is left; unless a person is being
        asked for a secret, whom nothing can interrupt: what he answers is then thrown away.
        """
        self.take_leave()
        self._end()
        if self._retry is not None:
            self._retry.close()
        self._scope.cancel()
        self._hang_up()
        if self._thread.ident is not None and not self._is_asking():
            with contextlib.suppress(RuntimeError):  # This is it.
                self._thread.join()

    # What subclasses say a connection is.

    def take_leave(self) -> None:
        """Say the last words over a connection that stands; `close` does so first."""

    def _is_asking(self) -> bool:
        """Return whether a person is being asked."""
        return False

    def _connect(self, deadline: Deadline) -> None:
        """Make a connection; a try that failed leaves nothing. Raises what keeps from it."""
        raise NotImplementedError

    def _serve(self) -> VmconnectError:
        """Return when the connection has ended, and why."""
        raise NotImplementedError

    def _drop(self) -> Lost:
        """Put away a connection that has ended, and say what went with it."""
        return Lost()

    def _hang_up(self) -> None:
        """End the connection, and wake who waits for it; from any thread, more than once."""

    # The life itself.

    def _open(self, deadline: Deadline, *, wait: bool = False) -> None:
        """Connect for the first time, in this thread; ``wait`` tries until the deadline.

        Raises what keeps from it; the channel is CLOSED then.
        """
        try:
            if wait and self._retry is not None:
                self._retry.attempt(lambda: self._connect(deadline), deadline)
            else:
                self._connect(deadline)
            if not self._enter_if_open(ChannelState.READY):
                raise self._ended()
        except VmconnectError as error:
            if not self._end(error):
                error = self._ended()
            self._drop()
            self.close()
            raise error.with_machine(self.machine) from error.__cause__
        except BaseException:
            self._drop()
            self.close()
            raise
        self._thread.start()

    def _live(self) -> None:
        """Serve connections and come back from their ends, until the channel's; the thread."""
        try:
            if self.state is ChannelState.CONNECTING:
                self._try()
            while self.alive:
                if self.state is ChannelState.READY:
                    self._lose(self._serve())
                elif self._wait() and self._enter_if_open(ChannelState.RECONNECTING, self.reason):
                    self._try()
        except BaseException as error:
            self._end(VmconnectError(f"internal error: {error!r}"))
            raise

    def _try(self) -> None:
        """Try once to connect, and be READY, LOST or CLOSED after it."""
        try:
            self._connect(self._scope.deadline(_TRY_SECONDS))
        except VmconnectError as error:
            self._lose(error)
            return
        if not self._enter_if_open(ChannelState.READY):
            self._drop()
        elif self._retry is not None:
            self._retry.succeeded()

    def _wait(self) -> bool:
        """Wait until it is time to try to come back; return whether to."""
        return self._retry is not None and self._retry.wait()

    def _lose(self, reason: VmconnectError) -> None:
        """Go on without the connection; for good, if it cannot be made again."""
        lost = self._drop()
        if isinstance(reason, ClosedError):
            self._end(None, lost)
        elif self._retry is None or not reason.temporary:
            self._end(reason, lost)
        else:
            self._enter_if_open(ChannelState.LOST, reason, lost)

    def _enter(
        self, after: ChannelState, reason: VmconnectError | None = None, lost: Lost = Lost()
    ) -> None:
        """Make a transition of the table; any other raises StateError and changes nothing."""
        reason = reason.with_machine(self.machine) if reason else None
        # So that listeners hear of transitions in their order.
        with self._entering:
            try:
                before = self._states.enter(after, reason)
            except StateError as error:
                raise error.with_machine(self.machine) from None
            self._listeners.put(StateChange(before, after, reason, lost))
        self._listeners.tell()

    def _enter_if_open(
        self, after: ChannelState, reason: VmconnectError | None = None, lost: Lost = Lost()
    ) -> bool:
        """Make a transition, unless the channel was closed; return whether it was made."""
        try:
            self._enter(after, reason, lost)
        except StateError:
            if self.alive:
                raise
            return False
        return True

    def _end(self, reason: VmconnectError | None = None, lost: Lost = Lost()) -> bool:
        """Enter CLOSED unless it is entered already; return whether this call did it."""
        # The only state that CLOSED cannot be entered from is CLOSED.
        return self._enter_if_open(ChannelState.CLOSED, reason, lost)

    def _ended(self) -> VmconnectError:
        """Return what ended the channel."""
        return self.reason or ClosedError(f"the {self.kind} is closed", machine=self.machine)

    def _check_open(self) -> None:
        """Raise what ended the channel, if it has ended."""
        if not self.alive:
            raise self._ended()
