"""``vmconnect completion``: what makes a shell complete our commands, options and machines."""

from __future__ import annotations

import argparse

__all__ = ["configure", "run"]

_SHELLS = ("bash", "zsh", "fish")


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        'bash, in ~/.bashrc: eval "$(vmconnect completion bash)". zsh, in ~/.zshrc after '
        'compinit: eval "$(vmconnect completion zsh)". fish, in ~/.config/fish/config.fish: '
        "vmconnect completion fish | source"
    )
    parser.add_argument("shell", choices=_SHELLS, help="the shell that is to read it")


def run(arguments: argparse.Namespace) -> int:
    """Print the script and return the exit code."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["vmconnect"], shell=arguments.shell))  # noqa: T201
    return 0
