"""What a window has still to show is bounded, however slow it is."""

from __future__ import annotations

import random

from vmconnect.ui.news import News
from vmconnect.vnc.damage import CAPACITY
from vmconnect.vnc.events import (
    Bell,
    CursorShape,
    Damage,
    NameChanged,
    Resized,
    ServerCutText,
    UpdateDone,
)

NO_CURSOR = CursorShape(0, 0, 0, 0, b"")


def update(*areas: tuple[int, int, int, int]) -> UpdateDone:
    return UpdateDone(tuple(Damage(*area) for area in areas), 1, 1)


def test_only_the_first_news_wakes() -> None:
    news = News()
    assert news.add(NameChanged("a"))
    assert not news.add(NameChanged("b"))
    assert not news.add(update((0, 0, 1, 1)))
    assert news.take() == ([NameChanged("b")], (Damage(0, 0, 1, 1),))
    assert news.add(update((0, 0, 1, 1)))
    assert news.take() == ([], (Damage(0, 0, 1, 1),))
    assert news.take() == ([], ())


def test_what_no_window_shows_is_no_news() -> None:
    news = News()
    assert not news.add(Bell())
    assert not news.add(ServerCutText("x" * 1000))
    assert news.take() == ([], ())


def test_a_new_size_comes_first_and_without_the_old_damage() -> None:
    news = News()
    news.add(update((700, 500, 10, 10)))
    news.add(NO_CURSOR)
    news.add(Resized(320, 200, changed=True))
    news.add(update((1, 2, 3, 4)))
    events, damage = news.take()
    assert events == [Resized(320, 200, changed=True), NO_CURSOR]
    assert damage == (Damage(1, 2, 3, 4),)


def test_a_window_that_sleeps_costs_nothing() -> None:
    news, chance = News(), random.Random(1)
    areas = []
    for number in range(5000):
        area = (chance.randrange(900), chance.randrange(700), 1 + number % 90, 1 + number % 50)
        areas.append(area)
        news.add(update(area))
        news.add(NameChanged(str(number)))
    events, damage = news.take()
    assert events == [NameChanged("4999")]
    assert 0 < len(damage) <= CAPACITY
    for x, y, width, height in areas:
        assert any(
            d.x <= x and d.y <= y and x + width <= d.x + d.width and y + height <= d.y + d.height
            for d in damage
        )
