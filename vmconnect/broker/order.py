"""What a client orders: a command line, and what of its own process matters to it."""

import os
import sys

from vmconnect.broker.wire import LIMIT_BYTES, PROTOCOL, RUN

__all__ = ["BadOrderError", "ForeignOrderError", "Order"]

# Where the same command means the same thing these are the same: which machines are found, whose
# keys and pinned keys are used, as whom.
_NAMES = frozenset(
    {
        "HOME",
        "LOGNAME",
        "USER",
        "LNAME",
        "USERNAME",
        "XDG_RUNTIME_DIR",
        "XDG_STATE_HOME",
        "XDG_CONFIG_HOME",
    }
)
_PREFIXES = ("VMCONNECT_", "LIBVIRT_")
_OWN_PREFIX = "VMCONNECT_BROKER"  # how the broker itself is to be
CLIENT = "VMCONNECT_BROKER_CLIENT"
"""What tells a broker the path of the compiled client whose orders it takes."""
_FIELDS = 9


class BadOrderError(Exception):
    """Bytes that are no order."""


class ForeignOrderError(Exception):
    """An order of another version of ours, or of another installation."""


def installation() -> str:
    """Return what tells this code from other code: its directory, and its Python's."""
    return f"{os.path.dirname(os.path.dirname(__file__))}\n{sys.prefix}"  # noqa: PTH120


def _is_ours(told: str) -> bool:
    """Return whether an order is of this installation: of its Python's, or its compiled client's.

    That one tells its own path, and whoever it starts.
    """
    return told == installation() or (bool(told) and told == os.environ.get(CLIENT))


def meaningful(environment: "os._Environ[str] | dict[str, str]") -> dict[str, str]:
    """Return the variables that have a bearing on what a command does."""
    return {
        name: value
        for name, value in environment.items()
        if name in _NAMES or (name.startswith(_PREFIXES) and not name.startswith(_OWN_PREFIX))
    }


class Order:
    """A command line to be run for a client.

    ``directory`` is the client's working directory, ``agent`` its ssh-agent's socket (empty if
    it has none), ``terminal`` whether its standard input is one, ``encoding`` that of its
    standard error, ``names`` that of its file names.
    """

    __slots__ = ("agent", "argv", "directory", "encoding", "environment", "names", "terminal")

    def __init__(
        self,
        argv: list[str],
        directory: str,
        environment: dict[str, str],
        *,
        agent: str = "",
        terminal: bool = False,
        encoding: str = "utf-8",
        names: str = "utf-8",
    ):
        self.argv = argv
        self.directory = directory
        self.environment = environment
        self.agent = agent
        self.terminal = terminal
        self.encoding = encoding
        self.names = names

    @classmethod
    def of_this_process(cls, argv: list[str]) -> "Order":
        """Return the order to run ``argv`` as if it were here; raises OSError."""
        return cls(
            argv,
            os.getcwd(),  # noqa: PTH109
            meaningful(os.environ),
            agent=os.environ.get("SSH_AUTH_SOCK", ""),
            terminal=os.isatty(0),
            encoding=sys.stderr.encoding if sys.stderr else "utf-8",
            names=sys.getfilesystemencoding(),
        )

    def to_bytes(self) -> bytes:
        """Return the packet; raises BadOrderError for more than fits."""
        fields = [
            PROTOCOL,
            installation(),
            self.directory,
            self.agent,
            "1" if self.terminal else "",
            self.encoding,
            self.names,
            str(len(self.argv)),
            str(len(self.environment)),
            *self.argv,
            *self.environment,
            *self.environment.values(),
        ]
        packet = RUN + "\0".join(fields).encode("utf-8", "surrogateescape")
        if len(packet) > LIMIT_BYTES:
            raise BadOrderError
        return packet

    @classmethod
    def from_bytes(cls, packet: bytes) -> "Order":
        """Read a packet; raises ForeignOrderError, or BadOrderError for what is no order."""
        fields = packet[1:].decode("utf-8", "surrogateescape").split("\0")
        if not _is_count(fields[0]):
            raise BadOrderError
        if fields[0] != PROTOCOL or not _is_ours("".join(fields[1:2])):
            raise ForeignOrderError
        head, rest = fields[2:_FIELDS], fields[_FIELDS:]
        if len(head) != _FIELDS - 2:
            raise BadOrderError
        directory, agent, terminal, encoding, names, *counts = head
        if not all(map(_is_count, counts)):
            raise BadOrderError
        words, variables = map(int, counts)
        if len(rest) != words + 2 * variables:
            raise BadOrderError
        named = rest[words:]
        return cls(
            rest[:words],
            directory,
            dict(zip(named[:variables], named[variables:], strict=True)),
            agent=agent,
            terminal=bool(terminal),
            encoding=encoding,
            names=names,
        )


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 7
