"""The vmconnect command.

One module a command, each with ``configure(parser)`` and ``run(arguments) -> exit code``. Only
the module of the command that was asked for is imported, and what is heavy only inside its
``run``: start-up is a feature.
"""

from vmconnect.cli.command_line import main

__all__ = ["main"]
