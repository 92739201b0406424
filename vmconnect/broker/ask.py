"""Questions to the broker, from whoever has nothing to hand over to it."""

from __future__ import annotations

from collections.abc import Iterator

from vmconnect.broker import wire
from vmconnect.errors import ConnectionLostError, StateError

__all__ = ["ask"]

_ANSWER_SECONDS = 5.0


def ask(question: bytes, *names: str, timeout: float = _ANSWER_SECONDS) -> Iterator[bytes]:
    """Give what the broker answers to SESSIONS, CLOSE or STOP; nothing where there is none.

    Raises StateError if it is of another version, ConnectionLostError if it does not answer
    within ``timeout`` seconds.
    """
    connection = wire.connect(timeout)
    if connection is None:
        return
    try:
        connection.send(question + "\0".join([wire.PROTOCOL, *names]).encode())
        while (message := connection.recv(wire.LIMIT_BYTES))[:1] == wire.SESSION:
            yield message
        if message[:1] == wire.RETIRED:
            raise StateError(
                "the broker is of another version", hint="it ends by itself when it is idle"
            )
        if message[1:]:
            yield message
    except OSError as error:
        raise ConnectionLostError("the broker does not answer", hint="it may hang") from error
    finally:
        connection.close()
