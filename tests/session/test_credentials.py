"""Where passwords come from, by whom they are for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.direct.login import nobody
from vmconnect.hypervisor import Machine
from vmconnect.hypervisor.machine import GuestNote
from vmconnect.secret import Secret
from vmconnect.session.credentials import (
    console_password,
    console_user,
    login_for,
    stored_password,
    variables,
)
from vmconnect.session.keyring import Keyring, KeyringEntry
from vmconnect.session.purpose import Purpose
from vmconnect.streams import Unix

UUID = "9f3c5a52-0f0e-4c53-9b2e-0e8f1a6f3f10"
WEB01 = Machine("web-01.example", UUID, "qemu:/x", hypervisor="qemu", uuid=UUID)
BY_UUID = "VMCONNECT_GUEST_PASSWORD_9F3C5A52_0F0E_4C53_9B2E_0E8F1A6F3F10"


@pytest.fixture(autouse=True)
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "ann")
    for name in ("VNC_PASSWORD", "VNC_USERNAME"):
        monkeypatch.delenv(name, raising=False)


def test_variables_have_the_machine_s_names() -> None:
    assert variables(WEB01, Purpose.GUEST) == [BY_UUID, "VMCONNECT_GUEST_PASSWORD_WEB_01_EXAMPLE"]
    address = Machine("web01", "vnc://build7:5901", "vnc://build7:5901")
    # What an address says that it is called may be another's name.
    assert variables(address, Purpose.CONSOLE) == ["VMCONNECT_CONSOLE_PASSWORD_VNC_BUILD7_5901"]
    assert variables(Machine("---", "", "x", hypervisor="qemu"), Purpose.GUEST) == []


@given(st.text(max_size=40))
def test_a_variable_s_name_is_one(name: str) -> None:
    machine = Machine(name, "x", "x", hypervisor="qemu")
    for variable in variables(machine, Purpose.GUEST):
        assert variable.removeprefix("VMCONNECT_GUEST_PASSWORD_").replace("_", "A").isalnum()
        assert variable.isascii()


def test_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fake_password(_keyring: Keyring, entry: KeyringEntry) -> Secret:
        asked.append(entry.account)
        return Secret("of the keyring")

    entry = KeyringEntry(Purpose.CONSOLE, UUID, "bob", "web01")
    monkeypatch.setattr(Keyring, "entries", lambda _self: [entry])
    monkeypatch.setattr(Keyring, "password", fake_password)
    assert console_password(WEB01) == Secret("of the keyring")
    assert asked == [f"console bob@{UUID}"]
    assert console_user(WEB01) == "bob"
    assert stored_password(WEB01, Purpose.GUEST) is None  # That one is for the console.
    monkeypatch.setenv("VNC_PASSWORD", "of all")
    assert console_password(WEB01) == Secret("of all")
    assert stored_password(WEB01, Purpose.GUEST) is None
    monkeypatch.setenv("VMCONNECT_CONSOLE_PASSWORD_WEB_01_EXAMPLE", "of this one")
    assert console_password(WEB01) == Secret("of this one")
    monkeypatch.setenv("VMCONNECT_CONSOLE_PASSWORD_WEB_01_EXAMPLE", "")
    assert console_password(WEB01) == Secret("of all")
    came = Machine("web01", UUID, "x", console_user="eve", console_password=Secret("came along"))
    assert (console_password(came), console_user(came)) == (Secret("came along"), "eve")
    assert len(asked) == 1


def test_what_the_caller_names_comes_alone(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").touch()
    machine = Machine("web01", UUID, "qemu:/x", hypervisor="qemu", agent=Unix("/x"))
    login = login_for(machine)
    assert (login.user, login.identity_files) == ("ann", (tmp_path / ".ssh/id_ed25519",))
    assert (login.use_agent, login.temporary_key is None, login.ask is nobody) == (
        True,
        False,
        False,
    )
    login = login_for(machine, "bob", password=Secret("x"))
    assert (login.user, login.identity_files, login.use_agent) == ("bob", (), False)
    assert (login.temporary_key, login.ask) == (None, nobody)
    login = login_for(machine, identity_files=[Path("/k")], passphrase=Secret("x"))
    assert (login.identity_files, login.use_agent, login.password) == ((Path("/k"),), False, None)
    assert (login.temporary_key, login.passphrase) == (None, Secret("x"))


@pytest.mark.parametrize(
    ("named", "note", "own", "may"),
    [
        (None, None, "ann", True),
        ("root", None, "ann", True),
        (None, "root", "ann", True),
        (None, None, "root", False),
        ("root", None, "root", True),
        ("bob", None, "root", True),
    ],
)
def test_the_guest_agent_makes_nobody_root_by_chance(
    monkeypatch: pytest.MonkeyPatch, named: str | None, note: str | None, own: str, may: bool
) -> None:
    monkeypatch.setenv("LOGNAME", own)
    machine = Machine(
        "web01", UUID, "qemu:/x", hypervisor="qemu", agent=Unix("/x"), note=GuestNote(user=note)
    )
    login = login_for(machine, named)
    assert (login.temporary_key is not None) == may
    assert ("guest agent" in login.hint) == (not may)


@given(
    identity=st.text(min_size=1, max_size=20),
    user=st.none() | st.text(min_size=1, max_size=20),
    machine=st.text(max_size=20) | st.just("*"),
)
def test_the_list_of_the_keyring_keeps_names(identity: str, user: str | None, machine: str) -> None:
    from vmconnect.session import keyring

    entry = KeyringEntry(Purpose.GUEST, identity, user, machine)
    line = keyring._line(entry)
    assert line.isascii()
    assert line.isprintable()
    assert keyring._entry(line) == entry
