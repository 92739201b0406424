"""Receipts: which of our input a server has read for certain.

RFB has no acknowledgements. But a server that has ExtendedDesktopSize answers a request for the
whole of an area with the screen's size (rfbproto, "ExtendedDesktopSize Pseudo-encoding"), and reads
what it is sent in order. So a request for the screen's first pixel, a *question*, costs hardly
anything, and its answer says that all that was sent before it has been read. (Not for no pixel at
all: QEMU 7.2 answers that too, and sends no update ever after.)

The answers bear no names: one to another request, or one that nobody asked for, must not be taken
for one to ours. So an answer counts only if nothing else that may bring one has been sent for a
while (a *disturbance*); then one question more is asked.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from vmconnect.vnc.messages import framebuffer_update_request

__all__ = ["QUESTION", "Receipts"]

QUESTION = framebuffer_update_request(False, 0, 0, 1, 1)

# How long answers to other requests may still come (seconds).
_SETTLED = 1.0

# More is not kept: of what has been typed into a server that never answers, the last.
_MOST_KEPT = 4096


@dataclass(frozen=True, slots=True)
class _Input:
    number: int
    what: str
    start: int


class Receipts:
    """Input that was sent and not yet answered for; the clock is the caller's, in seconds.

    Not for several threads at once.
    """

    def __init__(self, now: float) -> None:
        self.sent = 0
        """How many inputs there were."""
        self.confirmed = 0
        """How many of them, from the first, have been read for certain."""
        self.asked_at: float | None = None
        """When the question was asked whose answer is still to come."""
        self._asked_after = 0
        self._kept: deque[_Input] = deque(maxlen=_MOST_KEPT)
        self._disturbed_at = now

    @property
    def pending(self) -> bool:
        """Whether there is input of which it is not known whether it was read."""
        return self.confirmed < self.sent

    def note(self, what: str, start: int) -> None:
        """Note input that begins at byte ``start`` of what is sent; ``what`` is its name."""
        self.sent += 1
        self._kept.append(_Input(self.sent, what, start))

    def disturb(self, now: float) -> None:
        """Note that something is sent which may bring what looks like an answer."""
        self._disturbed_at = now

    def settled(self, now: float) -> bool:
        """Return whether the answer to a question asked now would count."""
        return self._disturbed_at <= now - _SETTLED

    def ask(self, now: float) -> bool:
        """Note that a question is sent now; False if one is under way, and none is to be."""
        if self.asked_at is not None:
            return False
        self.asked_at, self._asked_after = now, self.sent
        return True

    def answer(self) -> None:
        """Note that an answer has come."""
        if self.asked_at is None:
            return
        if self.settled(self.asked_at):
            self.confirmed = self._asked_after
            while self._kept and self._kept[0].number <= self.confirmed:
                self._kept.popleft()
        self.asked_at = None

    def withdraw(self) -> None:
        """Wait for the answer no longer: the server is there, and gives none that can be told."""
        self.asked_at = None

    def lost(self, handed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the input that has not left, and that of which nobody knows.

        ``handed`` is how many bytes have left, or may have.
        """
        unsent = tuple(each.what for each in self._kept if each.start >= handed)
        return unsent, tuple(each.what for each in self._kept if each.start < handed)
