"""The engine: order, dependence, and trials that fail in every way."""

import threading
from collections.abc import Callable

import pytest

from vmconnect.deadline import Deadline
from vmconnect.doctor.chain import CHAIN
from vmconnect.doctor.check import (
    Check,
    Finding,
    Outcome,
    Verdict,
    broken,
    examine,
    fine,
    skipped,
    warn,
)
from vmconnect.doctor.host import HOST
from vmconnect.errors import ConnectError
from vmconnect.secret import Secret
from vmconnect.session.credentials import ask_on_terminal, ask_secret
from vmconnect.terminal import asking_nobody

Trial = Callable[[list[str], Deadline], Verdict]


def saying(verdict: Verdict, name: str = "") -> Trial:
    def trial(log: list[str], deadline: Deadline) -> Verdict:
        log.append(name)
        return verdict

    return trial


def chain(*links: tuple[str, tuple[str, ...], Verdict]) -> tuple[dict[str, Finding], list[str]]:
    log: list[str] = []
    checks = [Check(name, needs, "", saying(verdict, name)) for name, needs, verdict in links]
    return {finding.check: finding for finding in examine(checks, log)}, log


def test_what_hangs_on_a_broken_link_is_not_tried() -> None:
    found, log = chain(
        ("a", (), fine("well")),
        ("b", ("a",), broken("bad", "mend it")),
        ("c", ("b",), fine("")),
        ("d", ("c",), fine("")),
        ("e", ("a",), warn("hm", "see")),
        ("f", ("a", "e"), fine("yes")),
        ("g", ("f", "d"), fine("")),
    )
    assert log == ["a", "b", "e", "f"]
    told = {name: (finding.outcome.value, finding.account) for name, finding in found.items()}
    assert told == {
        "a": ("ok", "well"),
        "b": ("broken", "bad"),
        "c": ("not tried", "b is broken"),
        "d": ("not tried", "b is broken"),
        "e": ("warning", "hm"),
        "f": ("ok", "yes"),
        "g": ("not tried", "b is broken"),
    }
    assert found["b"].remedy == "mend it"


def test_what_there_is_nothing_to_try_of_stops_nothing_unless_it_says_so() -> None:
    found, log = chain(
        ("a", (), skipped("not here")),
        ("b", ("a",), skipped("nothing", blocks=True)),
        ("c", ("b",), fine("")),
        ("d", ("a",), warn("wants a password", blocks=True)),
        ("e", ("d",), fine("")),
    )
    assert log == ["a", "b", "d"]
    assert found["c"].account == "nothing"
    assert found["e"].account == "it needs d"


def test_errors_are_findings_and_the_rest_goes_on() -> None:
    def fail(log: list[str], deadline: Deadline) -> Verdict:
        raise ConnectError("nobody is there", hint="start it")

    def stumble(log: list[str], deadline: Deadline) -> Verdict:
        raise ZeroDivisionError("oh")

    checks = [
        Check("a", (), "", fail),
        Check("b", (), "", stumble),
        Check("c", (), "", saying(fine(""))),
    ]
    one, two, three = examine(checks, [])
    assert (one.outcome, one.account, one.remedy) == (
        Outcome.BROKEN,
        "nobody is there",
        "start it",
    )
    assert two.outcome is Outcome.BROKEN
    assert "ZeroDivisionError('oh')" in two.account
    assert three.outcome is Outcome.OK


def test_what_does_not_come_back_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmconnect.doctor.check._GRACE_SECONDS", 0.05)
    over = threading.Event()

    def hang(log: list[str], deadline: Deadline) -> Verdict:
        over.wait(60)
        return fine("")

    try:
        one, two = examine(
            [Check("a", (), "", hang, 0.05), Check("b", (), "", saying(fine("")))], []
        )
    finally:
        over.set()
    assert one.outcome is Outcome.BROKEN
    assert "did not come back" in one.account
    assert one.remedy
    assert two.outcome is Outcome.OK


def test_findings_come_as_they_are_found() -> None:
    log: list[str] = []
    begun: list[str] = []
    checks = [
        Check("a", (), "", saying(broken("", ""), "a")),
        Check("b", ("a",), "", saying(fine(""))),
        Check("c", (), "", saying(fine(""), "c")),
    ]
    findings = examine(checks, log, lambda check: begun.append(check.name))
    next(findings)
    assert log == begun == ["a"]
    assert [finding.check for finding in findings] == ["b", "c"]
    assert begun == ["a", "c"]


@pytest.mark.parametrize("checks", [CHAIN, HOST])
def test_the_tables_are_in_order(checks: tuple[Check[object], ...]) -> None:
    known: set[str] = set()
    for check in checks:
        assert check.name not in known
        assert known.issuperset(check.needs)
        assert check.tries
        known.add(check.name)


def test_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _prompt: "x")
    with asking_nobody():
        assert ask_secret("password: ") is None
        assert ask_on_terminal("user: ") is None
    assert ask_secret("password: ") == Secret("x")
    # The trials run in threads of their own, and are within the same block.
    with asking_nobody():
        (finding,) = examine(
            [Check("a", (), "", lambda _log, _deadline: fine(str(ask_secret("?"))))], []
        )
    assert finding.account == "None"


def test_what_nobody_knows_a_remedy_for_has_the_table_s() -> None:
    remedies = [
        finding.remedy
        for finding in examine(
            [
                Check("a", (), "", saying(broken("x")), remedy="the table's"),
                Check("b", (), "", saying(broken("x", "its own")), remedy="the table's"),
                Check("c", (), "", saying(warn("x")), remedy="the table's"),
                Check("d", (), "", saying(fine("x")), remedy="the table's"),
            ],
            [],
        )
    ]
    assert remedies == ["the table's", "its own", "the table's", None]
