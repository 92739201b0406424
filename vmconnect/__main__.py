"""The entry of the ``vmconnect`` command and of ``python -m vmconnect``."""

import signal
import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line; even a Ctrl-C while Python still imports ends in one line."""
    try:
        from vmconnect.cli import main as command_line

        return command_line()
    except KeyboardInterrupt:
        sys.stderr.write("vmconnect: interrupted\n")
        return 130
    finally:
        # What is left is Python's own end, where Ctrl-C would still print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
