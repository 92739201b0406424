"""All hypervisors at once: one that fails or never comes back does not stop the others."""

import importlib
import threading
from collections.abc import Callable, Iterator

import pytest

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    AmbiguousTargetError,
    ClosedError,
    ConnectError,
    DeadlineError,
    MachineNotFoundError,
)
from vmconnect.hypervisor import EventKind, Hypervisor, Machine, MachineEvent, Watch
from vmconnect.retry import Backoff
from vmconnect.session import parse_target, resolve, resolve_all, take_inventory
from vmconnect.session.inventory import ask_all
from vmconnect.session.inventory_watch import Happened, InventoryWatch, Listed, Unwatched


class Fake(Hypervisor):
    """A hypervisor whose answers the test gives: real ones never hang at will."""

    name = "fake"

    def __init__(self, answer: Callable[[], list[Machine]], watch: Callable[[], Watch] = Watch):
        self.answer, self.opened, self.closed = answer, watch, 0

    def machines(self, deadline: Deadline) -> list[Machine]:
        return self.answer()

    def watch(self, deadline: Deadline) -> Watch:
        return self.opened()

    def close(self) -> None:
        self.closed += 1


def machine(name: str, place: str = "one") -> Machine:
    return Machine(name, f"{place}:{name}", f"{place}:{name}")


@pytest.fixture
def never() -> Iterator[Callable[[], list[Machine]]]:
    """An answer that does not come until the test is over."""
    over = threading.Event()

    def wait() -> list[Machine]:
        over.wait(60)
        return []

    yield wait
    over.set()


def refuse() -> list[Machine]:
    raise ConnectError("nobody is there", hint="start it")


def use(monkeypatch: pytest.MonkeyPatch, *those: Fake) -> None:
    for name in ("inventory", "resolve", "inventory_watch"):
        module = importlib.import_module(f"vmconnect.session.{name}")
        monkeypatch.setattr(module, "hypervisors", lambda every=False: list(those))


def test_what_answers_is_listed_and_what_does_not_is_an_error(
    monkeypatch: pytest.MonkeyPatch, never: Callable[[], list[Machine]]
) -> None:
    one, two = Fake(lambda: [machine("b"), machine("a")]), Fake(refuse)
    use(monkeypatch, one, two, Fake(never), Fake(lambda: [machine("a"), machine("a", "four")]))
    found = take_inventory(0.2)
    assert [each.target for each in found.machines] == ["four:a", "one:a", "one:b"]
    assert [type(error) for error in found.errors] == [ConnectError, DeadlineError]
    assert (one.closed, two.closed) == (1, 1)


def test_a_foreign_error_is_not_swallowed() -> None:
    def broken() -> list[Machine]:
        raise ZeroDivisionError

    for more in ([], [Fake(refuse)]):
        with pytest.raises(ZeroDivisionError):
            ask_all([Fake(broken), *more], lambda each: each.machines(Deadline(1)), Deadline(9))


def test_a_name_means_one_machine_or_an_error_with_the_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def every() -> list[Machine]:
        return [machine("web01"), machine("web02"), machine("db")]

    use(monkeypatch, Fake(every), Fake(lambda: [machine("db", "two")]), Fake(refuse))
    assert resolve(parse_target("web01")).target == "one:web01"
    with pytest.raises(AmbiguousTargetError, match="one:db, two:db"):
        resolve(parse_target("db"))
    with pytest.raises(AmbiguousTargetError, match=r"2 machines match 'web\*'"):
        resolve(parse_target("web*"))
    with pytest.raises(MachineNotFoundError) as caught:
        resolve(parse_target("wed01"))
    assert "known: web01" in str(caught.value)
    assert "nobody is there (start it)" in str(caught.value)

    def names(pattern: str) -> list[str]:
        return [each.name for each in resolve_all(parse_target(pattern))]

    assert names("web*") == ["web01", "web02"]
    assert names("*") == ["db", "db", "web01", "web02"]
    assert names("[a-d]b") == ["db", "db"]
    with pytest.raises(MachineNotFoundError, match="known: "):
        names("x*")
    with pytest.raises(AmbiguousTargetError):
        names("db")


class FakeWatch(Watch):
    """Gives one event, and then fails, or waits until it is closed."""

    def __init__(self, *, lost: bool):
        self.machines = [machine("a")]
        self.events = [MachineEvent(EventKind.STARTED, "a", "one:a")]
        self.lost, self.closed = lost, threading.Event()

    def next(self, timeout: Deadline | float | None = None) -> MachineEvent:
        if self.events:
            return self.events.pop()
        if self.lost:
            raise ConnectError("it has gone")
        self.closed.wait(60)
        raise ClosedError("the watch is closed")

    def close(self) -> None:
        self.closed.set()


def test_a_watch_that_is_lost_is_told_and_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmconnect.session.inventory_watch._BACKOFF", Backoff(0.01, 0.01))
    watches = iter([FakeWatch(lost=True), FakeWatch(lost=False)])
    hypervisor = Fake(list, lambda: next(watches))
    use(monkeypatch, hypervisor)
    with InventoryWatch() as watch:
        news = [watch.next(60) for _ in range(5)]
        assert [type(each) for each in news] == [Listed, Happened, Unwatched, Listed, Happened]
        assert isinstance(news[3], Listed)
        assert news[3].machines == (machine("a"),)
        with pytest.raises(DeadlineError):
            watch.next(0.01)
    with pytest.raises(ClosedError):
        watch.next()
    assert hypervisor.closed == 2
    assert not any(thread.name == f"vmconnect {hypervisor}" for thread in threading.enumerate())


def test_what_stays_wrong_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmconnect.session.inventory_watch._BACKOFF", Backoff(0.001, 0.001))
    tries = iter(range(20))

    def fail() -> Watch:
        raise ConnectError("nobody is there" if next(tries, None) is not None else "all is over")

    use(monkeypatch, Fake(list, fail))
    with InventoryWatch() as watch:
        told = [watch.next(60), watch.next(60)]
    assert [str(each.error) for each in told if isinstance(each, Unwatched)] == [
        "nobody is there",
        "all is over",
    ]
