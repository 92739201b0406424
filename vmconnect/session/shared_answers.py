"""What a person is asked for many machines: each question once, whoever is first to have it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vmconnect.secret import Secret
from vmconnect.session.credentials import ask_secret

__all__ = ["SharedAnswers"]


class SharedAnswers:
    """The answers to the questions that logins ask; safe to use from any thread.

    One question is asked at a time, and one that differs from another in the machine's name alone
    is the same. So a password is given to every machine that asks for this user's, and one that
    was not answered is not asked for again.
    """

    def __init__(self, ask: Callable[[str], Secret | None] = ask_secret):
        self._ask = ask
        self._lock = threading.Lock()
        self._answers: dict[str, Secret | None] = {}

    def ask(self, machine: str, prompt: str) -> Secret | None:
        """Return the answer to what the login to a machine asks; None if there is none."""
        question = prompt.replace(f"@{machine}'s ", "'s ")
        with self._lock:
            if question not in self._answers:
                told = question
                if question != prompt:
                    told = question.rstrip(": ") + ", for all machines that ask for it: "
                self._answers[question] = self._ask(told)
            return self._answers[question]
