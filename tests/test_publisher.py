"""Subscribers hear everything, in order, and hold nobody up."""

from __future__ import annotations

import logging
import threading

import pytest

from vmconnect.publisher import Publisher


def test_all_is_told_in_order_to_all() -> None:
    publisher: Publisher[int] = Publisher("it")
    heard: list[tuple[str, int]] = []
    publisher.subscribe(lambda event: heard.append(("a", event)))
    publisher.subscribe(lambda event: heard.append(("b", event)))
    publisher.publish(1)
    publisher.publish(2)
    assert heard == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_what_a_subscriber_publishes_comes_after_what_it_hears() -> None:
    publisher: Publisher[int] = Publisher("it")
    heard: list[int] = []

    def again(event: int) -> None:
        if event < 3:
            publisher.publish(event + 1)

    publisher.subscribe(again)
    publisher.subscribe(heard.append)
    publisher.publish(1)
    assert heard == [1, 2, 3]


def test_nobody_waits_for_a_subscriber_that_another_calls() -> None:
    publisher: Publisher[int] = Publisher("it")
    heard: list[int] = []
    inside, go_on = threading.Event(), threading.Event()

    def slow(event: int) -> None:
        heard.append(event)
        inside.set()
        go_on.wait(60)

    publisher.subscribe(slow)
    thread = threading.Thread(target=publisher.publish, args=[1])
    thread.start()
    inside.wait(60)
    publisher.publish(2)  # Returns at once: the other thread tells it.
    assert heard == [1]
    go_on.set()
    thread.join()
    assert heard == [1, 2]


def test_one_who_fails_is_logged_and_the_others_hear(caplog: pytest.LogCaptureFixture) -> None:
    publisher: Publisher[int] = Publisher("web01")
    heard: list[int] = []

    def broken(_event: int) -> None:
        raise ValueError("my mistake")

    publisher.subscribe(broken)
    publisher.subscribe(heard.append)
    with caplog.at_level(logging.ERROR):
        publisher.publish(1)
    assert heard == [1]
    assert "my mistake" in caplog.text
    assert "web01" in caplog.text


def test_one_who_leaves_hears_no_more() -> None:
    publisher: Publisher[int] = Publisher("it")
    heard: list[int] = []
    publisher.subscribe(heard.append)
    assert publisher.heard
    publisher.unsubscribe(heard.append)
    publisher.unsubscribe(heard.append)
    publisher.publish(1)
    assert heard == []
    assert not publisher.heard
