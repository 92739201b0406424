"""The link to a server: how fast it is, and what to ask for over it.

Only the time from an update's first byte to its last counts, and only the bytes that come in it:
between updates it is the machine that has nothing to say. A server that encodes slowly looks like
a slow link; nothing that a client sees tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmconnect.vnc.encodings.raw import RAW
from vmconnect.vnc.encodings.tight import TIGHT
from vmconnect.vnc.preference import Choice, Preference

__all__ = ["LADDER", "LOCAL", "Link", "Rung"]


@dataclass(frozen=True, slots=True)
class Rung:
    """What is asked for over a link that carries at least so many bits a second."""

    bits_per_second: float
    choice: Choice


LADDER = (
    Rung(1e9, Choice(RAW.number)),
    Rung(50e6, Choice(TIGHT.number, None, 1)),
    Rung(8e6, Choice(TIGHT.number, 8, 2)),
    Rung(2e6, Choice(TIGHT.number, 6, 6)),
    Rung(0, Choice(TIGHT.number, 3, 9)),
)
"""From what costs the processors least to what costs the link least."""

LOCAL = LADDER[:1]
"""What is asked for where there is no network."""

_FIRST = 1
"""The rung of a network that is not known yet."""

_SAMPLE_BYTES = 32 * 1024
"""What is measured at a time."""

_AT_ONCE_BYTES = 16 * 1024
"""As much of an update in one piece says that the link is fast; less says nothing."""

_LEAST_SECONDS = 1e-4
"""What an update takes at least that has come at once."""

_WEIGHT = 0.5
"""Of a new sample; the samples before have the rest."""

# A rung is left for the one below by this many samples in a row under so much of its bits, and
# for the one above by so many over so much of that one's. Between the two nothing changes.
_DOWN_SAMPLES, _DOWN = 2, 0.8
_UP_SAMPLES, _UP = 4, 1.5


class Link:
    """Measures a link by when bytes come; the clock is the caller's, in seconds."""

    def __init__(self, preference: Preference | None = None, ladder: tuple[Rung, ...] = LADDER):
        self._preference = preference or Preference()
        self._ladder = ladder
        self._rung = min(_FIRST, len(ladder) - 1)
        self._estimate: float | None = None
        # Of the update that is coming: when it began, when its last bytes came.
        self._began: float | None = None
        self._last = 0.0
        self._first_bytes = self._bytes = 0
        # Of the sample that is being taken.
        self._sample_bytes, self._sample_seconds = 0, 0.0
        self._below = self._above = 0

    @property
    def bits_per_second(self) -> float | None:
        """How fast the link is; None before enough has come."""
        return self._estimate

    @property
    def choice(self) -> Choice:
        """What to ask for now."""
        return self._preference.applied(self._ladder[self._rung].choice)

    def received(self, count: int, came: float, *, waited: bool) -> None:
        """Note that ``count`` bytes came at ``came``.

        Without having ``waited`` for them they may have come at any time since the last ones.
        """
        if self._began is None:
            self._began = came if waited else self._last
            # What comes first was on its way before, and comes in no time.
            self._first_bytes = count if waited else 0
        self._bytes += count
        self._last = came

    def update_ended(self) -> bool:
        """Note that an update has ended with the bytes that came last; return whether to change."""
        if self._began is None:
            return False
        seconds, count = self._last - self._began, self._bytes - self._first_bytes
        if not count and self._bytes >= _AT_ONCE_BYTES:
            count = self._bytes
        self._began, self._bytes = None, 0
        if not count:
            return False
        self._sample_bytes += count
        self._sample_seconds += max(seconds, _LEAST_SECONDS)
        if self._sample_bytes < _SAMPLE_BYTES:
            return False
        return self._take(8 * self._sample_bytes / self._sample_seconds)

    def _take(self, rate: float) -> bool:
        self._sample_bytes, self._sample_seconds = 0, 0.0
        before = self._estimate if self._estimate is not None else rate
        self._estimate = estimate = before + _WEIGHT * (rate - before)
        rung, ladder, choice = self._rung, self._ladder, self.choice
        lower = estimate < _DOWN * ladder[rung].bits_per_second
        higher = rung > 0 and estimate > _UP * ladder[rung - 1].bits_per_second
        self._below = self._below + 1 if lower else 0
        self._above = self._above + 1 if higher else 0
        if self._below >= _DOWN_SAMPLES and rung < len(ladder) - 1:
            self._rung += 1
            self._below = 0
        elif self._above >= _UP_SAMPLES:
            self._rung -= 1
            self._above = 0
        return self.choice != choice
