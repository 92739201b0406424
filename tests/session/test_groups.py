"""Groups of machines, and which are meant by targets, patterns and groups: simulated monitors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hypervisor.monitors import monitors
from vmconnect.errors import AmbiguousTargetError, MachineNotFoundError, ResourceError, TargetError
from vmconnect.session.groups import expanded, group_names, groups_path
from vmconnect.session.selection import Selection, select


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    groups_path().parent.mkdir()
    return groups_path()


@pytest.fixture
def machines(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """vm0001 to vm0012."""
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", str(directory))
    with monitors(directory, 12):
        yield directory


def names(selection: Selection) -> list[str]:
    return [machine.name.removeprefix("vm00") for machine in selection.machines]


def test_groups_are_what_is_in_them(config: Path) -> None:
    config.write_text('web = ["web*", "ssh://kvm7/web09"]\nsite = ["@web", "db", "@web"]\n')
    assert group_names() == ["site", "web"]
    assert expanded(["first", "@site", "web*"]) == ["first", "web*", "ssh://kvm7/web09", "db"]


@pytest.mark.parametrize(
    ("text", "asked", "error", "words"),
    [
        (None, "@web", TargetError, "there is no group 'web'.*has: none"),
        ('db = ["x"]', "@web", TargetError, "has: db"),
        ('a = ["@b"]\nb = ["@c"]\nc = ["@b"]', "@a", TargetError, "b is in itself: b > c > b"),
        ('a = "web01"', "@a", ResourceError, "a is no list of targets"),
        ("a = [1]", "@a", ResourceError, "a is no list of targets"),
        ("a = [", "@a", ResourceError, "is no TOML"),
    ],
)
def test_what_is_wrong_with_groups(
    config: Path, text: str | None, asked: str, error: type[Exception], words: str
) -> None:
    if text is not None:
        config.write_text(text)
    with pytest.raises(error, match=words):
        expanded([asked])


def test_groups_that_multiply_are_looked_at_once(config: Path) -> None:
    lines = [f"g{n} = {[f'@g{n + 1}'] * 10}" for n in range(40)]
    config.write_text("\n".join([*lines, 'g40 = ["web01"]']))
    assert expanded(["@g0", "@g0"]) == ["web01"]


@given(st.dictionaries(st.text("ab@", max_size=2), st.lists(st.text("ab@", max_size=3))))
def test_any_groups_end(groups: dict[str, list[str]]) -> None:
    lines = (f'"{name}" = {members!r}' for name, members in groups.items())
    groups_path().write_text("\n".join(lines))
    for name in groups:
        try:
            found = expanded([f"@{name}"])
        except TargetError:
            continue
        assert not [each for each in found if each.startswith("@")]


def test_machines_come_once_and_in_order(machines: Path, config: Path) -> None:
    config.write_text('some = ["vm0012", "vm000[89]"]')
    assert names(select(["vm0011", "@some", "vm001*", "vm0008"])) == ["11", "12", "08", "09", "10"]
    assert names(select(["vm0003"])) == ["03"]
    by_path = f"qemu:{machines}/vm0003.qmp"
    assert names(select(["vm0003", by_path])) == ["03"]
    assert names(select(["vm*"], without=["vm00*0*", "vm0011"])) == ["12"]


def test_one_that_leads_nowhere_keeps_nobody_from_the_others(machines: Path) -> None:
    chosen = select(["nosuch", "vm0001", "none*", "vsock-mux/nonexistent"])
    assert names(chosen) == ["01", "vsock-mux/nonexistent"]
    assert [error.machine for error in chosen.errors] == ["nosuch", "none*"]
    assert all(isinstance(error, MachineNotFoundError) for error in chosen.errors)


def test_nothing_at_all(machines: Path) -> None:
    with pytest.raises(MachineNotFoundError, match="'nosuch'"):
        select(["nosuch", "neither"])
    with pytest.raises(MachineNotFoundError, match="no machine is meant"):
        select(["vm0001"], without=["vm*"])
    with pytest.raises(TargetError, match="is no target"):
        select(["vm0001", "no/such"])


def test_who_is_left_out_must_be_there(machines: Path) -> None:
    with pytest.raises(MachineNotFoundError, match="'vm00012'"):
        select(["vm*"], without=["vm00012"])


def test_all_that_have_a_way_in(machines: Path) -> None:
    # A hybrid vsock socket beside the monitor is one.
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(machines / "vm0007.vsock"))
        chosen = select(everything=True)
        assert names(chosen) == ["07"]
        assert len(chosen.skipped) == 11
        assert names(select(["vm0001"], everything=True)) == ["01", "07"]


def test_machines_of_one_name_are_told_apart(
    machines: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = directory / "more"
    other.mkdir()
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", f"{directory} {other}")
    with monitors(other, 1):
        chosen = select(["vm000[12]"])
        assert sorted(chosen.labels.values()) == [
            f"qemu:{other}/vm0001.qmp",
            f"qemu:{directory}/vm0001.qmp",
            "vm0002",
        ]
        with pytest.raises(AmbiguousTargetError):
            select(["vm0001"])
