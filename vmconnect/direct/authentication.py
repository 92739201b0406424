"""Logging in over SSH (RFC 4252): the ways of a `Login`, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vmconnect.deadline import Deadline
from vmconnect.direct.key_agent import KeyAgent
from vmconnect.direct.library import paramiko
from vmconnect.direct.login import Login, nobody
from vmconnect.direct.offered import offered_logins
from vmconnect.direct.transport import GarbageError
from vmconnect.errors import (
    AuthenticationError,
    DeadlineError,
    ResourceError,
    TargetError,
    VmconnectError,
)
from vmconnect.secret import Secret, forget_frames

__all__ = ["AttemptsExhaustedError", "Authentication"]


class AttemptsExhaustedError(AuthenticationError):
    """The server hung up after as many attempts as it takes; ``rest`` is what is left to try.

    ``tried`` says what was.
    """

    def __init__(self, message: str, machine: str, rest: Login, tried: Sequence[str]):
        super().__init__(message, machine=machine)
        self.rest = rest
        self.tried = tuple(tried)


class Authentication:
    """The logins that are tried on one connection; ``tried`` is what was before, on others."""

    def __init__(
        self,
        transport: paramiko.Transport,
        machine: str,
        login: Login,
        deadline: Deadline,
        tried: Sequence[str] = (),
    ):
        self.login = login
        """What is to be tried; once we are in, with the password that a person gave."""
        self.method = ""
        """How we came in."""
        self._transport = transport
        self._machine = machine
        self._deadline = deadline
        self._tried = [*tried]
        self._keys_welcome = True
        # Whether the server has answered an attempt on this connection.
        self._answered = False
        # Keys that cannot be opened without a person.
        self._locked: list[Path] = []

    def run(self) -> None:
        """Log in.

        Raises AuthenticationError when all is refused, AttemptsExhaustedError when the server
        hangs up before, DeadlineError, and what the ssh library raises.
        """
        rest = self.login
        for step, done in (
            (self._by_files, {"identity_files": ()}),
            (self._by_agent, {"use_agent": False}),
            (self._by_password, {"password": None}),
            (self._by_temporary_key, {"temporary_key": None}),
            (self._by_person, {"ask": nobody}),
        ):
            self._deadline.check("logging in")
            if step():
                return
            rest = replace(rest, **done)
            if not self._transport.is_active():
                self._deadline.check("logging in")
                if not (self._answered or self._dismissed):
                    raise EOFError  # It has refused nothing: the connection broke.
                if rest.ask is not nobody:
                    rest = replace(rest, identity_files=tuple(self._locked))
                if rest.has_more:
                    raise AttemptsExhaustedError(self._account(), self._machine, rest, self._tried)
                break
        self._deadline.check("logging in")
        refused = AuthenticationError(
            self._account(),
            machine=self._machine,
            hint="load the key with ssh-add" if self._locked else self.login.hint,
        )
        refused.offered = offered_logins(self._transport, self.login.user)
        raise refused

    def _account(self) -> str:
        tried = ", ".join(self._tried) or "nothing, having no key"
        return f"login as {self.login.user} refused; tried {tried}"

    def _by_files(self) -> bool:
        for path in self.login.identity_files:
            key = self._opened(path, self.login.passphrase)
            if key is None and self.login.passphrase is not None:
                self._tried.append(f"key {path}, which the passphrase does not open")
            elif key is None:
                self._locked.append(path)
            elif self._by_key(f"key {path}", key):
                return True
        return False

    def _by_agent(self) -> bool:
        return any(self._by_key(description, key) for description, key in self._agent_keys())

    def _agent_keys(self) -> Iterator[tuple[str, paramiko.PKey]]:
        if self.login.use_agent:
            agent = KeyAgent(self.login.agent_socket)
            try:
                for key in agent.get_keys():
                    yield f"agent key {key.get_name()}", key
            finally:
                agent.close()

    def _by_password(self) -> bool:
        password = self.login.password
        if password is None or not self._transport.is_active():
            return False
        try:
            secret = password() if callable(password) else password
        except VmconnectError as error:
            self._tried.append(f"no password, as {error.message}")
            return False
        return secret is not None and self._with_password(secret)

    def _by_temporary_key(self) -> bool:
        if self.login.temporary_key is None or not self._usable():
            return False
        try:
            with self.login.temporary_key(self._transport.remote_version, self._deadline) as key:
                return self._by_key("a key put in by the guest agent", key)
        except DeadlineError:
            self._deadline.check("asking the guest agent to let us in")
            self._tried.append("the guest agent, which does not answer")
        except VmconnectError as error:
            self._tried.append(f"the guest agent ({error.message})")
        return False

    def _by_person(self) -> bool:
        login = self.login
        for path in self._locked:
            answer = self._asked(f"passphrase for {path}: ") if self._usable() else None
            if answer is None:
                self._tried.append(f"key {path}, which has a passphrase")
            else:
                key = self._opened(path, answer)
                if key is None:
                    raise AuthenticationError(f"wrong passphrase for {path}")
                if self._by_key(f"key {path}", key):
                    return True
        if not self._transport.is_active():
            return False
        secret = self._asked(f"{login.user}@{self._machine}'s password: ")
        if secret is None or not self._with_password(secret):
            return False
        self.login = replace(login, password=secret)
        return True

    def _asked(self, prompt: str) -> Secret | None:
        """Ask the person, whose time does not count."""
        left = self._deadline.remaining()
        answer = Secret.of(self.login.ask(prompt))
        self._deadline = self._deadline.renewed(left)
        return answer

    @property
    def _dismissed(self) -> bool:
        """Whether the server has said that it hangs up."""
        return bool(getattr(self._transport, "dismissed", False))

    def _usable(self) -> bool:
        """Whether a key could be of use."""
        return self._keys_welcome and self._transport.is_active()

    def _by_key(self, description: str, key: paramiko.PKey) -> bool:
        if not self._usable():
            return False
        self._deadline.check("logging in")
        self._tried.append(description)
        try:
            wanted = self._transport.auth_publickey(self.login.user, key)
        except paramiko.BadAuthenticationType:
            self._keys_welcome = False  # Keys are not taken at all.
            self._answered = True
            return False
        except GarbageError:
            raise
        except paramiko.SSHException as error:
            self._answered = self._answered or self._transport.is_active()
            # The server may also have hung up before we asked.
            if self._transport.is_active() and not isinstance(
                error, paramiko.AuthenticationException
            ):
                raise
            return False
        return self._is_in(description, wanted)

    def _with_password(self, secret: Secret) -> bool:
        self._tried.append("a password")
        try:
            wanted = self._transport.auth_password(self.login.user, secret.reveal())
        except GarbageError as error:
            forget_frames(error)
            raise
        except paramiko.SSHException as error:
            forget_frames(error)
            self._answered = self._answered or self._transport.is_active()
            if self._transport.is_active() and not isinstance(
                error, paramiko.AuthenticationException
            ):
                raise
            return False
        return self._is_in("password", wanted)

    def _is_in(self, method: str, wanted: list[str]) -> bool:
        """Take account of an accepted proof; the server may want another besides."""
        self.method = f"{self.method} and {method}" if self.method else method
        return not wanted

    def _opened(self, path: Path, passphrase: Secret | None) -> paramiko.PKey | None:
        """Read a private key; None if it needs a passphrase, or another one."""
        try:
            return _private_key(path, passphrase)
        except paramiko.PasswordRequiredException:
            return None
        except (TargetError, AuthenticationError):
            if passphrase is None:
                raise
            # One that is no key at all says so without a passphrase too.
            try:
                _private_key(path, None)
            except paramiko.PasswordRequiredException:
                return None
            raise


def _private_key(path: Path, passphrase: Secret | None) -> paramiko.PKey:
    """Read a private key file of any kind that SSH has.

    Raises paramiko's PasswordRequiredException, ResourceError, or TargetError for a file that
    is no key or does not open with this passphrase.
    """
    text = passphrase.reveal() if passphrase else None
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key_file(str(path), text)
        except paramiko.PasswordRequiredException:
            raise
        except OSError as error:
            raise ResourceError(f"cannot read the key {path}: {error.strerror}") from error
        except (ValueError, TypeError, IndexError, paramiko.SSHException) as error:
            forget_frames(error)
    raise TargetError(f"{path} is no private key that can be read")
