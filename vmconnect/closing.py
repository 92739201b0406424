"""What is closed at the end of a ``with`` block."""

from __future__ import annotations

from typing import Self

__all__ = ["Closing"]


class Closing:
    """A thing with a ``close``, which a ``with`` block calls however it ends."""

    def close(self) -> None:
        """Let go of what it holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
