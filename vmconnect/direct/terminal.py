"""What a guest is told of the terminal that a shell is to have there (RFC 4254, section 6.2)."""

from __future__ import annotations

import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vmconnect.deadline import Deadline
from vmconnect.direct.channel_request import request, start_command
from vmconnect.direct.library import paramiko

__all__ = ["DEFAULT_MODES", "Terminal", "encode_modes", "start_on_terminal"]

# The opcodes of terminal modes (RFC 4254, section 8; RFC 8160), by termios(3)'s names. Those that
# this system has no name for are not spoken of.
_CHARACTERS = {
    "VINTR": 1,
    "VQUIT": 2,
    "VERASE": 3,
    "VKILL": 4,
    "VEOF": 5,
    "VEOL": 6,
    "VEOL2": 7,
    "VSTART": 8,
    "VSTOP": 9,
    "VSUSP": 10,
    "VREPRINT": 12,
    "VWERASE": 13,
    "VLNEXT": 14,
    "VDISCARD": 18,
}
_INPUT = {
    "IGNPAR": 30,
    "PARMRK": 31,
    "INPCK": 32,
    "ISTRIP": 33,
    "INLCR": 34,
    "IGNCR": 35,
    "ICRNL": 36,
    "IUCLC": 37,
    "IXON": 38,
    "IXANY": 39,
    "IXOFF": 40,
    "IMAXBEL": 41,
    "IUTF8": 42,
}
_LOCAL = {
    "ISIG": 50,
    "ICANON": 51,
    "XCASE": 52,
    "ECHO": 53,
    "ECHOE": 54,
    "ECHOK": 55,
    "ECHONL": 56,
    "NOFLSH": 57,
    "TOSTOP": 58,
    "IEXTEN": 59,
    "ECHOCTL": 60,
    "ECHOKE": 61,
    "PENDIN": 62,
}
_OUTPUT = {"OPOST": 70, "OLCUC": 71, "ONLCR": 72, "OCRNL": 73, "ONOCR": 74, "ONLRET": 75}
_CONTROL = {"CS7": 90, "CS8": 91, "PARENB": 92, "PARODD": 93}
_INPUT_SPEED, _OUTPUT_SPEED = 128, 129
_END = b"\0"
_DISABLED = 255
# Python's termios has no name for it before 3.13 (asm-generic/termbits.h).
_OUR_OWN = {"IUTF8": 0x4000, "IUCLC": 0x200}
# What is between the speeds' codes is of no matter to a terminal that is none.
_SPEED = 38400

DEFAULT_MODES = bytes([_INPUT["IUTF8"], 0, 0, 0, 1]) + _END
"""The guest's own defaults, for a terminal whose characters are UTF-8."""

# A terminal has little on its way: what is interrupted falls silent soon.
_WINDOW_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal in a guest: its type (terminfo(5)), its size in characters, its modes.

    ``modes`` is as `encode_modes` gives it. Of type ``dumb`` most programs write neither colours
    nor anything else that moves the cursor, which is good to read for a program.
    """

    type: str = "xterm-256color"
    columns: int = 80
    rows: int = 24
    modes: bytes = DEFAULT_MODES


def encode_modes(attributes: Sequence[Any]) -> bytes:
    """Return a terminal's modes as the guest's is to have them.

    ``attributes`` is what `termios.tcgetattr` gives.
    """
    input_, output, control, local, _speed, _speed, characters = attributes
    modes: dict[int, int] = {_INPUT_SPEED: _SPEED, _OUTPUT_SPEED: _SPEED}
    for name, opcode in _CHARACTERS.items():
        value = characters[getattr(termios, name)]
        number = value if isinstance(value, int) else value[0]
        # _POSIX_VDISABLE is 0 on Linux, and 255 in the protocol.
        modes[opcode] = number or _DISABLED
    for names, flags in (
        (_INPUT, input_),
        (_LOCAL, local),
        (_OUTPUT, output),
    ):
        for name, opcode in names.items():
            flag = getattr(termios, name, _OUR_OWN.get(name, 0))
            if flag:
                modes[opcode] = int(bool(flags & flag))
    size = control & termios.CSIZE
    for name, opcode in _CONTROL.items():
        flag = getattr(termios, name)
        modes[opcode] = int(size == flag if name.startswith("CS") else bool(control & flag))
    return b"".join(bytes([code]) + modes[code].to_bytes(4, "big") for code in sorted(modes)) + _END


def start_on_terminal(
    transport: paramiko.Transport,
    terminal: Terminal,
    environment: Mapping[str, str],
    command: str | None,
    deadline: Deadline,
) -> paramiko.Channel:
    """Start ``command``, or the user's shell, on a terminal, and return its channel.

    Variables of ``environment`` that the server does not accept are not set, and it does not say
    which. Raises GuestError where there is no terminal to be had, TimeoutError, and what paramiko
    raises.
    """
    channel = transport.open_session(
        window_size=_WINDOW_BYTES, timeout=deadline.remaining(at_most=3600)
    )
    try:
        request(channel, "pty-req", _description(terminal), deadline, "it gives us no terminal")
        for name, value in environment.items():
            channel.set_environment_variable(name, value)
        if command is None:
            request(channel, "shell", b"", deadline, "it gives us no shell")
        else:
            start_command(channel, command, deadline)
        channel.settimeout(None)
    except BaseException:
        channel.close()
        raise
    return channel


def _description(terminal: Terminal) -> bytes:
    message = paramiko.Message()
    message.add_string(terminal.type)
    for number in (terminal.columns, terminal.rows, 0, 0):
        message.add_int(number)
    message.add_string(terminal.modes)
    return message.asbytes()
