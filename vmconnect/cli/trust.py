"""``vmconnect trust``: which keys are trusted to be which machine's."""

from __future__ import annotations

import argparse
import json
from typing import Any

from vmconnect.cli.table import print_table
from vmconnect.cli.trust_question import ask_trust
from vmconnect.cli.voice import printable, say
from vmconnect.errors import HostKeyUnknownError, MachineNotFoundError, TrustError, VmconnectError
from vmconnect.hypervisor import Machine
from vmconnect.hypervisor.lookup import is_pattern
from vmconnect.session import HostKey, PublicKey, connect, parse_target, resolve
from vmconnect.session.key_store import Origin, Pin
from vmconnect.session.pinned import Pinned, forget_pinned, list_pinned, named_by, store_of
from vmconnect.session.purpose import Purpose

__all__ = ["configure", "run"]

_HEADS = ("MACHINE", "FOR", "KEY", "FINGERPRINT", "TOLD BY", "SINCE")
_ORIGINS = {
    Origin.ACCEPTED: "who used it first",
    Origin.ADDED: "trust add",
    Origin.AGENT: "guest agent",
    Origin.LOCAL: "own socket",
    None: "-",
}
_NOTE = "its note"
_NOUNS = {Purpose.GUEST: "host key", Purpose.CONSOLE: "VNC server's key"}
_SECONDS = 30.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "Keys are pinned to a machine's UUID. The first one is told by the guest agent, where "
        "there is one, or by whoever started the machine, or you are asked; another one is "
        "refused, until the first is forgotten. See docs/logins.md."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    sub = _action(actions, "list", "list all keys that are trusted")
    sub = _action(actions, "show", "show a machine's keys")
    sub.add_argument("target", metavar="TARGET", help="the machine")
    sub = _action(actions, "forget", "trust a machine's keys no more: its next one is a first one")
    sub.add_argument(
        "target", metavar="TARGET", help="a machine, a UUID, or a pattern of either ('web*')"
    )
    sub = _action(actions, "add", "fetch a machine's key, show it, and pin it if you say so")
    sub.add_argument("target", metavar="TARGET", help="the machine")
    sub.add_argument("--console", action="store_true", help="the VNC server's key, not the guest's")
    answer = sub.add_mutually_exclusive_group()
    answer.add_argument("--yes", action="store_true", help="pin it without asking")
    answer.add_argument(
        "--fingerprint", metavar="SHA256:...", help="pin it if this is its fingerprint"
    )


def _action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=summary)
    sub.add_argument("--json", action="store_true", help="print a JSON array, an object for each")
    return sub


def run(arguments: argparse.Namespace) -> int:
    """Do it, and return the exit code."""
    actions = {"list": _list, "show": _show, "forget": _forget, "add": _add}
    return actions[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    _print(list_pinned(), arguments.json)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    found = _found(arguments.target)
    noted = None if is_pattern(arguments.target) else _noted(arguments.target)
    if not found and noted is None:
        raise MachineNotFoundError(
            f"no key is pinned to {arguments.target!r}",
            hint=f"vmconnect trust add {arguments.target} fetches one",
        )
    _print(found, arguments.json, noted)
    return 0


def _forget(arguments: argparse.Namespace) -> int:
    which = named_by(arguments.target)
    gone = forget_pinned(which)
    if not gone and not is_pattern(arguments.target):
        # It may be called otherwise than it was, or is an address written in another way.
        identity = _resolved(arguments.target).identity
        gone = forget_pinned(lambda pin: pin.identity == identity)
    if not gone:
        raise MachineNotFoundError(
            f"no key is pinned to {arguments.target!r}", hint="vmconnect trust list"
        )
    if arguments.json:
        _print(gone, as_json=True)
    else:
        for each in gone:
            name = printable(each.pin.machine or each.pin.identity)
            key = " ".join(_key_columns(each.pin.key))
            print(f"{name}: no longer trusted: {each.purpose.value} {key}")  # noqa: T201
    return 0


def _add(arguments: argparse.Namespace) -> int:
    from vmconnect.session.shown_keys import shown_keys

    with connect(arguments.target) as session:
        machine = session.machine
        guest = not arguments.console and machine.guest is not None
        purpose = Purpose.GUEST if guest or machine.console is None else Purpose.CONSOLE
        keys, origin = shown_keys(session, purpose, _SECONDS)
    store = store_of(purpose)
    if known := store.pinned(machine.identity):
        if known_again := [key for key in keys if key in known]:
            say(f"{machine.name}: its {_NOUNS[purpose]} is pinned already")
            keys = known_again
        else:
            store.check(machine.identity, keys[0], machine.name, lambda _key: False)  # It raises.
    else:
        _agree(arguments, machine, purpose, keys, origin)
        store.pin(machine.identity, *keys, machine=machine.name, origin=origin)
    pins = [pin for pin in store.pins() if pin.identity == machine.identity and pin.key in keys]
    _print([Pinned(purpose, pin) for pin in pins], arguments.json)
    return 0


def _agree(
    arguments: argparse.Namespace,
    machine: Machine,
    purpose: Purpose,
    keys: list[PublicKey],
    origin: Origin,
) -> None:
    """Return if the keys are the machine's, in the word of who asks or of the guest agent."""
    if arguments.fingerprint is not None:
        _compare(arguments.fingerprint, keys, machine)
    elif not (arguments.yes or origin is Origin.AGENT):
        what = _NOUNS[purpose]
        if not ask_trust(machine.name, what, keys[0]):
            raise HostKeyUnknownError(
                f"its {what} {keys[0].fingerprint} ({keys[0].kind}) is not pinned",
                machine=machine.name,
                hint="compare it with the machine's own, and add --yes or --fingerprint",
            )


def _compare(named: str, keys: list[PublicKey], machine: Machine) -> None:
    if not any(_bare(key.fingerprint) == _bare(named) for key in keys):
        shown = ", ".join(key.fingerprint for key in keys)
        raise TrustError(f"it shows {shown}, not {named}", machine=machine.name)


def _bare(fingerprint: str) -> str:
    """Return a fingerprint without the name of its hash; X.509's hexadecimal is in any case."""
    bare = fingerprint.removeprefix("SHA256").lstrip(": ")
    return bare.upper() if ":" in bare else bare


def _found(target: str) -> list[Pinned]:
    """Return what is pinned to a target: as it was called then, or as it is now."""
    which = named_by(target)
    found = [each for each in list_pinned() if which(each.pin)]
    if not found and not is_pattern(target):
        identity = _resolved(target).identity
        found = [each for each in list_pinned() if each.pin.identity == identity]
    return found


def _resolved(target: str) -> Machine:
    try:
        return resolve(parse_target(target), _SECONDS)
    except MachineNotFoundError as error:
        error.message = f"no key is pinned to {target!r}, and {error.message}"
        raise


def _noted(target: str) -> tuple[Machine, HostKey] | None:
    """Return the key that whoever started the machine wrote down."""
    try:
        machine = resolve(parse_target(target), _SECONDS)
    except VmconnectError:
        return None  # It need not run for its keys to be shown.
    key = HostKey.from_line(machine.note.host_key or "")
    return None if key is None else (machine, key)


def _print(
    found: list[Pinned], as_json: bool, noted: tuple[Machine, HostKey] | None = None
) -> None:
    if as_json:
        objects = [_as_json(each.purpose, each.pin) for each in found]
        if noted:
            pin: Pin[PublicKey] = Pin(noted[0].identity, noted[1], noted[0].name)
            objects.insert(0, {**_as_json(Purpose.GUEST, pin), "origin": "note"})
        print(json.dumps(objects, indent=2))  # noqa: T201
        return
    rows = [_row(each) for each in found]
    if noted:
        rows.insert(0, (printable(noted[0].name), "guest", *_key_columns(noted[1]), _NOTE, "-"))
    print_table([_HEADS, *rows])


def _row(pinned: Pinned) -> tuple[str, ...]:
    pin = pinned.pin
    since = pin.since.astimezone().strftime("%Y-%m-%d %H:%M:%S") if pin.since else "-"
    name = printable(pin.machine or pin.identity)
    return name, pinned.purpose.value, *_key_columns(pin.key), _ORIGINS[pin.origin], since


def _key_columns(key: PublicKey) -> tuple[str, str]:
    """Return the kind and the fingerprint, as ssh-keygen and openssl print them."""
    kind = f"{key.algorithm} {key.bits}" if isinstance(key, HostKey) else printable(key.kind)
    return printable(kind), key.fingerprint


def _as_json(purpose: Purpose, pin: Pin[PublicKey]) -> dict[str, Any]:
    return {
        "machine": pin.machine,
        "identity": pin.identity,
        "for": purpose.value,
        "kind": pin.key.kind,
        "bits": pin.key.bits if isinstance(pin.key, HostKey) else None,
        "fingerprint": pin.key.fingerprint,
        "origin": pin.origin.value if pin.origin else None,
        "since": pin.since.isoformat() if pin.since else None,
    }
