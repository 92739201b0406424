"""What a machine's servers prove to be, asked without logging in."""

from __future__ import annotations

from vmconnect.deadline import Deadline
from vmconnect.errors import TrustError, UnsupportedError
from vmconnect.session.agent_access import has_agent, told_host_keys
from vmconnect.session.key_store import Origin, PublicKey
from vmconnect.session.purpose import Purpose
from vmconnect.session.session import Session
from vmconnect.session.trust import HostKey

__all__ = ["shown_keys"]


class _ShownError(TrustError):
    """The key has been seen, and that was all we wanted."""

    def __init__(self, key: PublicKey):
        super().__init__("seen")
        self.key = key


def shown_keys(
    session: Session, purpose: Purpose, timeout: Deadline | float | None = 30.0
) -> tuple[list[PublicKey], Origin]:
    """Return the keys of one of the machine's servers, and who says that they are its own.

    A guest's are taken from its guest agent where there is one, else from its SSH server. Nothing
    secret is sent. Raises UnsupportedError where there is no such server or it shows no key,
    ConnectError, DeadlineError, and what the protocol raises.
    """
    deadline = Deadline.of(timeout)
    if purpose is Purpose.CONSOLE:
        return [_of_console(session, deadline)], Origin.ADDED
    if has_agent(session.machine) and (told := told_host_keys(session.machine, deadline)):
        return [*told], Origin.AGENT
    return [_of_guest(session, deadline)], Origin.ADDED


def _of_guest(session: Session, deadline: Deadline) -> PublicKey:
    from vmconnect.direct.login import Login
    from vmconnect.direct.ssh import SshConnection

    def show(kind: str, blob: bytes) -> None:
        raise _ShownError(HostKey(kind, blob))

    stream = session.guest_stream(deadline)
    try:
        SshConnection(stream, session.machine.name, Login(), show, timeout=deadline).close()
    except _ShownError as shown:
        return shown.key
    raise AssertionError("a login without a host key")


def _of_console(session: Session, deadline: Deadline) -> PublicKey:
    from vmconnect.vnc.policy import Policy, ServerKey

    def show(key: ServerKey) -> None:
        raise _ShownError(key)

    try:
        # Only logins in which it proves something; the proof comes before anything secret.
        session.console(
            password=_nothing,
            user=_nothing,
            policy=Policy(check_key=show, verified=True),
            timeout=deadline,
        )
    except _ShownError as shown:
        return shown.key
    except TrustError as error:
        raise UnsupportedError(
            "its VNC server shows no key that could be pinned",
            machine=session.machine.name,
            hint="let it offer VeNCrypt with a certificate",
        ) from error
    raise AssertionError("a login without a key")


def _nothing() -> None:
    """Answer nothing, and have nothing looked up."""
