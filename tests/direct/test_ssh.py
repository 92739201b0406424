"""The connection itself, with a real sshd of this host."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.direct.sshd import sshd_guest
from vmconnect.errors import DeadlineError, GuestError

WAIT = 60.0
ROUNDS, AT_ONCE = 5, 6


def test_all_that_are_refused_at_once_are_told_so(tmp_path: Path) -> None:
    with sshd_guest(tmp_path, "MaxSessions 1") as box, box.open() as guest:
        held = guest.start(["cat"])
        errors: list[BaseException] = []

        def run() -> None:
            try:
                guest.run(["true"])
            except BaseException as error:  # noqa: BLE001 (looked at below)
                errors.append(error)

        for _ in range(ROUNDS):
            threads = [threading.Thread(target=run, daemon=True) for _ in range(AT_ONCE)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(WAIT)
        assert len(errors) == ROUNDS * AT_ONCE
        for error in errors:
            with pytest.raises(GuestError, match="refused while opening a channel"):
                raise error
        held.close()


def test_a_server_that_does_not_answer_meets_the_deadline(tmp_path: Path) -> None:
    with sshd_guest(tmp_path) as box, box.open() as guest:
        box.freeze()
        with pytest.raises(DeadlineError, match="box: timed out while opening a channel"):
            guest.run(["true"], timeout=0.5)
        box.cut()
