"""The entry of the ``vmconnect`` command and of ``python -m vmconnect``.

Nothing is imported before it is known to be needed: a command that the broker runs needs next to
nothing.
"""

import os
import sys

__all__ = ["main"]

# Commands that the broker runs.
_BROKERED = frozenset(("exec",))
# The compiled client tells here what came of asking, `client.NOBODY` or `client.ALONE`, by name;
# and where it is, for the broker that takes its orders. Nobody else whom we start is to be told.
_ASKED, _CLIENT = "VMCONNECT_BROKER_ASKED", "VMCONNECT_BROKER_CLIENT"
_INTERRUPTED = 130
_FAILED = 255


def main() -> int:
    """Run the command line; even a Ctrl-C while Python still imports ends in one line."""
    try:
        _open_standard()
        asked, client = os.environ.pop(_ASKED, ""), os.environ.pop(_CLIENT, "")
        if sys.argv[1:2] and sys.argv[1] in _BROKERED:
            _leave(_by_broker(sys.argv[1:], asked, client))
        return _alone()
    except KeyboardInterrupt:
        sys.stderr.write("vmconnect: interrupted\n")
        return _INTERRUPTED
    finally:
        # What is left is Python's own end, where Ctrl-C would still print a traceback.
        import signal

        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _open_standard() -> None:
    """Open the null device where a standard descriptor is closed, as ssh does.

    Else it would be the next thing's that is opened, a connection for instance.
    """
    if None in {sys.stdin, sys.stdout, sys.stderr}:
        for number in range(3):
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # the lowest that is free


def _by_broker(argv: list[str], asked: str, client: str) -> int:
    """Have the broker run the command, or do it alone, and see to a broker for the next one."""
    if not asked:
        from vmconnect.broker.client import NOBODY, hand_over

        code = hand_over(argv)
        if code >= 0:
            return code
        missing = code == NOBODY
    else:
        missing = asked == "nobody"
    code = _alone()
    if missing and code not in {_INTERRUPTED, _FAILED}:
        from vmconnect.broker.start import start
        from vmconnect.cli.exec import for_many

        if not for_many(argv):  # For those it does nothing.
            start(client)
    return code


def _alone() -> int:
    import gc

    # Imports make objects by the thousand, and no garbage: to look for it takes its time.
    gc.set_threshold(50_000)
    from vmconnect.cli import main as command_line

    return command_line()


def _leave(code: int) -> None:
    """Exit at once: all that was opened is closed, and Python takes its modules apart for long."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
