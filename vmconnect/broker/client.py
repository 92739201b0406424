"""The thin client: it hands a command to the broker, and is its process meanwhile.

The broker reads and writes the command's streams itself. What is left to do here is what belongs
to a process: signals, and reading the terminal, which only a foreground process may.
"""

import os
import sys
from _signal import (
    SIG_DFL,
    SIGHUP,
    SIGQUIT,
    SIGTERM,
    SIGTSTP,
    SIGTTIN,
    SIGUSR1,
    SIGUSR2,
    getsignal,
)
from _signal import signal as set_handler
from _socket import SCM_RIGHTS, SHUT_RDWR, SOL_SOCKET
from _socket import socket as Socket  # noqa: N812 (the class that socket.socket is made of)

from vmconnect.broker import wire
from vmconnect.broker.order import BadOrderError, Order

__all__ = ["ALONE", "NOBODY", "hand_over"]

NOBODY = -1
"""There is no broker, or none any more: do it alone, and start one for the next time."""
ALONE = -2
"""Do it alone."""

# How long a broker may take to say that it has read the order. One that takes longer hangs.
_ANSWER_SECONDS = 3.0
_INPUT_BYTES = 1 << 16
# What is passed on; Ctrl-C is, too, and is no handler's.
_ENDING = {SIGHUP: b"HUP", SIGQUIT: b"QUIT", SIGTERM: b"TERM"}
_PASSED_ON = {SIGUSR1: b"USR1", SIGUSR2: b"USR2", **_ENDING}
_FAILED = 255


def hand_over(argv: list[str]) -> int:
    """Have the broker run a command line, and return its exit code; `NOBODY`, or `ALONE`."""
    if not _wanted(argv):
        return ALONE
    connection = wire.connect(_ANSWER_SECONDS)
    if connection is None:
        return NOBODY
    try:
        try:
            order = Order.of_this_process(argv)
            rights = b"".join(each.to_bytes(4, sys.byteorder) for each in range(wire.DESCRIPTORS))
            connection.sendmsg([order.to_bytes()], [(SOL_SOCKET, SCM_RIGHTS, rights)])
        except (OSError, BadOrderError):
            return ALONE
        return _Wait(connection).run()
    finally:
        connection.close()


def _wanted(argv: list[str]) -> bool:
    environment = os.environ
    return not (
        environment.get("VMCONNECT_BROKER") == "0"
        or environment.get("VMCONNECT_DEBUG")
        or "--no-broker" in argv
        # Secrets stay in this process.
        or any("PASSWORD" in name for name in environment if name.startswith("VMCONNECT_"))
    )


class _Wait:
    """Waiting for the broker, and doing what it cannot do."""

    def __init__(self, connection: Socket):
        self._connection = connection
        self._begun = self._wanting = self._interrupted = False
        self._passed_on: set[int] = set()

    def run(self) -> int:
        for numbers, handler in (
            ((SIGTSTP, SIGTTIN), self._on_stop),
            (_PASSED_ON, self._on_signal),
        ):
            for number in numbers:
                if getsignal(number) == SIG_DFL:  # else whoever started us wants it otherwise
                    set_handler(number, handler)
        while True:
            try:
                code = self._turn()
            except KeyboardInterrupt:
                if self._interrupted:
                    raise
                self._interrupted = True
                self._send(wire.SIGNAL + b"INT" if self._begun else wire.INTERRUPT)
            else:
                if code is not None:
                    return code

    def _turn(self) -> int | None:
        """Take a message, or input that is wanted; return what `hand_over` does, if it is over."""
        if self._wanting and not self._answered():
            self._wanting = False
            self._send(wire.INPUT + self._typed())
            return None
        try:
            message = self._received()
        except TimeoutError:
            return self._give_up()
        kind = message[:1]
        if kind == wire.EXIT:
            return message[1]
        if kind in {wire.ALONE, wire.RETIRED}:
            if self._interrupted:
                raise KeyboardInterrupt
            return ALONE if kind == wire.ALONE else NOBODY
        if kind == wire.TAKEN:
            self._connection.settimeout(None)
        elif kind == wire.BEGUN:
            self._begun = True
        elif kind == wire.WANT:
            self._wanting = True
        elif not kind:
            return self._over()
        return None

    def _received(self) -> bytes:
        """Return a message, nothing at the end; raises TimeoutError."""
        while True:
            try:
                return self._connection.recv(wire.LIMIT_BYTES)
            except ConnectionResetError:
                # What it has not read of ours is told first; what it said before is still there.
                continue

    def _answered(self) -> bool:
        """Wait until there is something to read; return whether it is from the broker."""
        import select  # Only who types needs it.

        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self._connection.fileno(), select.POLLIN)
        return any(descriptor for descriptor, _ in poll.poll())

    @staticmethod
    def _typed() -> bytes:
        try:
            return os.read(0, _INPUT_BYTES)
        except OSError:
            return b""  # The terminal has gone.

    def _send(self, message: bytes) -> None:
        try:  # noqa: SIM105 (contextlib is no import of ours)
            self._connection.send(message)
        except OSError:
            pass  # It has gone, which the next turn finds.

    def _give_up(self) -> int:
        """Leave a broker that hangs, unless it has begun after all."""
        # From here on it cannot say that it begins; what it has said can still be read.
        self._connection.shutdown(SHUT_RDWR)
        while message := self._received():
            self._begun |= message == wire.BEGUN
        return self._over() if self._begun or self._interrupted else ALONE

    def _over(self) -> int:
        """Return what is left to do when the broker has gone without a word."""
        if self._interrupted:
            raise KeyboardInterrupt
        if not self._begun:
            return NOBODY
        os.write(2, b"vmconnect: the broker has ended while the command ran\n")
        return _FAILED

    def _on_signal(self, number: int, _frame: object) -> None:
        """Pass a signal on; before there is a command, and the second time, it is meant for us."""
        if not self._begun or (number in _ENDING and number in self._passed_on):
            set_handler(number, SIG_DFL)
            os.kill(os.getpid(), number)
        self._passed_on.add(number)
        self._send(wire.SIGNAL + _PASSED_ON[number])

    def _on_stop(self, number: int, _frame: object) -> None:
        """Stop as the signal would have us, and the command's output with us."""
        self._send(wire.PAUSE)
        set_handler(number, SIG_DFL)
        os.kill(os.getpid(), number)
        set_handler(number, self._on_stop)
        self._send(wire.RESUME)
