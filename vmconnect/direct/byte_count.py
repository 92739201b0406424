"""How many bytes a command takes and gives, whoever feeds and takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vmconnect.direct.pump import Sink
from vmconnect.operation import Operation

__all__ = ["ByteCount"]


class ByteCount:
    """Counts the bytes of an operation while they pass."""

    def __init__(self, operation: Operation):
        operation.sent = operation.received = 0
        self._operation = operation

    def sending(self, source: bytes | Iterable[bytes] | None) -> bytes | Iterable[bytes] | None:
        """Return the same input, counted."""
        if source is None:
            return None
        if isinstance(source, bytes):
            self._sent(len(source))
            return source
        return self._passing(source)

    def receiving(self, sink: Sink | None) -> Sink | None:
        """Return the same sink, counted."""
        if sink is None:
            return None

        def take(data: bytes) -> None:
            self.received(len(data))
            sink(data)

        return take

    def received(self, count: int) -> None:
        """Count bytes that came."""
        self._operation.received = (self._operation.received or 0) + count

    def _sent(self, count: int) -> None:
        self._operation.sent = (self._operation.sent or 0) + count

    def _passing(self, source: Iterable[bytes]) -> Iterator[bytes]:
        for data in source:
            self._sent(len(data))
            yield data
