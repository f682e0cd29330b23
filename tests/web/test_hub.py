"""The newest news only, commands in order, and commands that are none."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgemtl.web.hub import COMMANDS, Command, Hub


def test_the_newest_news_replace_the_old() -> None:
    hub = Hub({"tasks": {}})
    heard: list[int] = []

    def listener() -> None:
        heard.append(hub.news.number)

    hub.publish(b"one", {"n": 1})
    assert not hub.watched
    hub.listen(listener)
    assert (hub.watched, hub.watchers) == (True, 1)
    hub.publish(None, {"n": 2})
    assert hub.news == (2, b"one", {"n": 2}), "the last picture stays"
    hub.publish(b"three", {"n": 3})
    hub.leave(listener)
    hub.publish(b"four", {"n": 4})
    assert heard == [2, 3]
    assert not hub.watched


def test_commands_wait_in_order_and_not_without_end() -> None:
    hub = Hub({})
    taken = [hub.ask(Command(blend=i / 100)) for i in range(COMMANDS + 3)]
    assert taken == [True] * COMMANDS + [False] * 3
    assert [c.blend for c in hub.commands()] == [i / 100 for i in range(COMMANDS)]
    assert hub.commands() == []
    assert hub.ask(Command(experts=-1))


def test_listeners_may_come_and_go_while_news_are_published() -> None:
    hub = Hub({})

    def flicker() -> None:
        for _ in range(300):
            hub.listen(print_nothing)
            hub.leave(print_nothing)

    def print_nothing() -> None:
        pass

    threads = [threading.Thread(target=flicker) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(300):
        hub.publish(b"x", {"i": i})
    for thread in threads:
        thread.join()
    assert hub.news.number == 300


@pytest.mark.parametrize(
    "asked",
    [
        {"tasks": []},
        {"tasks": ["a", "b", "c"]},
        {"tasks": ["../x"]},
        {"blend": 1.01},
        {"blend": float("nan")},
        {"experts": -2},
        {"quit": True},
        ["tasks"],
        None,
    ],
)
def test_what_is_no_command(asked: object) -> None:
    with pytest.raises(ValidationError):
        Command.model_validate(asked)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_anything_else_is_a_validation_error_or_a_command(asked: object) -> None:
    try:
        Command.model_validate(asked)
    except ValidationError:
        return
    assert isinstance(asked, dict)
