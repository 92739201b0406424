"""The machine that is examined, and what is known of it so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.deadline import Deadline
from vmconnect.errors import VmconnectError
from vmconnect.hypervisor import Machine
from vmconnect.secret import Secret
from vmconnect.session import Session
from vmconnect.session.target import Target, parse_target
from vmconnect.terminal import asking_nobody

if TYPE_CHECKING:
    from vmconnect.direct import Guest
    from vmconnect.vnc import Console

__all__ = ["Patient"]


@dataclass(slots=True)
class Patient:
    """One target; a session with its machine once that is found, and channels once they are open.

    What the session's console and guest give, a channel or an error, is kept: several links are
    judged by it. Nobody is asked for anything. ``user``, ``identity_files`` and
    ``console_password`` are for the guest's login and the console's.
    """

    text: str
    user: str | None = None
    identity_files: Sequence[Path] = ()
    console_password: Secret | None = None
    session: Session | None = None
    _console: Console | VmconnectError | None = None
    _guest: Guest | VmconnectError | None = None

    @property
    def target(self) -> Target:
        """The target, read; raises TargetError."""
        return parse_target(self.text)

    @property
    def machine(self) -> Machine:
        """The machine, which has been found."""
        assert self.session is not None  # noqa: S101 (the checks that need it come after)
        return self.session.machine

    def console(self, deadline: Deadline) -> Console | VmconnectError:
        """Attach to the machine's console, once; return it or what keeps us from it."""
        if self._console is None:
            assert self.session is not None  # noqa: S101 (as above)
            try:
                with asking_nobody():
                    self._console = self.session.console(
                        password=self.console_password, timeout=deadline
                    )
            except VmconnectError as error:
                self._console = error
        return self._console

    def guest(self, deadline: Deadline) -> Guest | VmconnectError:
        """Log in to the machine's guest, once; return the channel or what keeps us from it."""
        if self._guest is None:
            assert self.session is not None  # noqa: S101 (as above)
            try:
                with asking_nobody():
                    self._guest = self.session.guest(
                        user=self.user, identity_files=self.identity_files, timeout=deadline
                    )
            except VmconnectError as error:
                self._guest = error
        return self._guest

    def close(self) -> None:
        """Close what was opened."""
        if self.session is not None:
            self.session.close()
