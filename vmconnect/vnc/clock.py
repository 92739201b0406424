"""The time that connecting may take, without the time that a person takes to answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec, TypeVar

from vmconnect.deadline import Deadline
from vmconnect.vnc.credentials import Answer, Credentials
from vmconnect.vnc.policy import Policy

__all__ = ["Clock"]

P = ParamSpec("P")
R = TypeVar("R")


class Clock:
    """A deadline that stands still while a person is asked."""

    def __init__(self, deadline: Deadline):
        self.deadline = deadline
        self._asked = 0

    @property
    def asking(self) -> bool:
        """Whether a person is being asked."""
        return self._asked > 0

    def credentials(self, password: Answer, user: Answer) -> Credentials:
        """Return credentials whose being asked for takes no time."""
        return Credentials(self._stopped(password), self._stopped(user))

    def policy(self, policy: Policy) -> Policy:
        """Return the policy with a check of keys that takes no time."""
        if policy.check_key is None:
            return policy
        return replace(policy, check_key=self.stopping(policy.check_key))

    def stopping(self, function: Callable[P, R]) -> Callable[P, R]:
        """Let a function take no time."""

        def stopped(*args: P.args, **kwargs: P.kwargs) -> R:
            left = self.deadline.remaining()
            self._asked += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._asked -= 1
                self.deadline = self.deadline.renewed(left)

        return stopped

    def _stopped(self, secret: Answer) -> Answer:
        return self.stopping(secret) if callable(secret) else secret
