"""What a person is asked about a key that was never seen."""

from __future__ import annotations

from vmconnect.session import PublicKey, ask_on_terminal

__all__ = ["ask_trust"]


def ask_trust(machine: str, what: str, key: PublicKey) -> bool:
    """Ask the person at the terminal, if there is one, whether the key is the machine's."""
    answer = ask_on_terminal(
        f"The {what} of {machine} is not known yet:\n"
        f"  {key.kind} {key.fingerprint}\nTrust it from now on (yes/no)? "
    )
    return (answer or "").lower() == "yes"
