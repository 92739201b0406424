"""Receipts: what is known to have been read, and what is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmconnect.vnc.receipts import Receipts


def quiet() -> Receipts:
    """Nothing else has been asked for a while."""
    return Receipts(now=-10.0)


def test_an_answer_is_for_all_that_was_sent_before_the_question() -> None:
    receipts = quiet()
    receipts.note("a", 0)
    receipts.note("b", 10)
    assert receipts.pending
    assert receipts.ask(1.0)
    receipts.note("c", 20)
    assert not receipts.ask(2.0)  # One at a time.
    receipts.answer()
    assert (receipts.sent, receipts.confirmed) == (3, 2)
    assert receipts.lost(30) == ((), ("c",))
    assert receipts.ask(3.0)
    receipts.answer()
    assert receipts.confirmed == 3
    assert receipts.lost(30) == ((), ())


def test_an_answer_that_may_be_another_s_is_for_nothing() -> None:
    for disturbed, asked in ((0.5, 1.0), (1.0, 1.0), (1.5, 1.0)):
        receipts = quiet()
        receipts.note("a", 0)
        if disturbed <= asked:
            receipts.disturb(disturbed)
            receipts.ask(asked)
        else:
            receipts.ask(asked)
            receipts.disturb(disturbed)
        receipts.answer()
        assert receipts.pending
        assert receipts.asked_at is None  # But it is one: somebody is there.
        assert receipts.ask(5.0)
        receipts.answer()
        assert not receipts.pending


def test_an_answer_that_nobody_asked_for_is_for_nothing() -> None:
    receipts = quiet()
    receipts.note("a", 0)
    receipts.answer()
    assert receipts.pending


def test_what_has_not_left_is_known_to_be_lost() -> None:
    receipts = quiet()
    for place, what in enumerate("abcd"):
        receipts.note(what, 10 * place)
    assert receipts.lost(0) == (("a", "b", "c", "d"), ())
    # Of the one that is cut nobody knows.
    assert receipts.lost(15) == (("c", "d"), ("a", "b"))
    assert receipts.lost(40) == ((), ("a", "b", "c", "d"))


def test_what_is_kept_is_bounded() -> None:
    receipts = quiet()
    for place in range(100_000):
        receipts.note(str(place), place)
    unsent, uncertain = receipts.lost(100_000)
    assert unsent == ()
    assert uncertain[-1] == "99999"
    assert len(uncertain) < 5000
    receipts.ask(1.0)
    receipts.answer()
    assert receipts.lost(100_000) == ((), ())


class Server:
    """Reads in order, and answers what it has read; others' questions within a second."""

    def __init__(self, receipts: Receipts) -> None:
        self.receipts = receipts
        self.stream: list[str] = []
        self.answers = 0
        self.inputs = 0

    def read(self) -> None:
        if self.stream:
            item = self.stream.pop(0)
            self.inputs += item == "input"
            self.answers += item == "question"

    def answer(self) -> None:
        if self.answers:
            self.answers -= 1
            self.receipts.answer()

    def catch_up(self) -> None:
        while self.stream or self.answers:
            self.read()
            self.answer()


@given(st.lists(st.sampled_from(["note", "ask", "read", "answer", "other"])))
def test_nothing_is_confirmed_that_a_server_has_not_read(course: list[str]) -> None:
    receipts, now, owed = quiet(), 0.0, 0.0
    server = Server(receipts)
    for step in course:
        now += 0.3
        if owed and now - owed > 0.6:
            server.catch_up()
            owed = 0.0
        match step:
            case "note":
                receipts.note("x", receipts.sent)
                server.stream.append("input")
            case "ask" if receipts.ask(now):
                server.stream.append("question")
            case "other":
                receipts.disturb(now)
                server.stream.append("question")
                owed = owed or now
            case "read":
                server.read()
            case "answer":
                server.answer()
        assert receipts.confirmed <= server.inputs
    server.catch_up()
    receipts.ask(now + 10)
    receipts.answer()
    assert receipts.confirmed == server.inputs
