"""What is told while a map is made, and the thread that makes it."""

import logging
import threading
import time

import pytest

from landcover_plugin.mapping import progress
from landcover_plugin.mapping.background import Background
from landcover_plugin.mapping.progress import Progress


def test_lines_appear_now_and_then_where_there_is_no_terminal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger('landcover_plugin'), 'propagate', True)
    caplog.set_level(logging.INFO, logger='landcover_plugin')
    now = [100.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
    told = Progress(10_000_000, 4_000_000)
    for _ in range(7):
        now[0] += 10
        told.add(500_000)
    assert [r.getMessage() for r in caplog.records] == [
        'map: 5.5 of 10.0 Mpx (55 %), 0.05 Mpx/s, 90 s left',
        'map: 7.0 of 10.0 Mpx (70 %), 0.05 Mpx/s, 60 s left',
    ]
    quiet = Progress(10, quiet=True)
    now[0] += 100
    quiet.add(5)
    assert len(caplog.records) == 2


def test_work_is_done_in_order_beside_who_hands_it_over() -> None:
    done, threads = [], set()

    def work(item: int) -> None:
        time.sleep(0.001)
        done.append(item)
        threads.add(threading.current_thread())

    background = Background(work, 'test')
    for item in range(20):
        background.put(item)
    background.finish()
    assert done == list(range(20)) and len(threads) == 1 and threading.current_thread() not in threads


def test_an_error_of_the_work_reaches_who_hands_over_and_ends_the_work() -> None:
    done = []

    def work(item: int) -> None:
        if item == 1:
            raise KeyError(item)
        done.append(item)

    background = Background(work, 'test', depth=1)
    with pytest.raises(KeyError):
        for item in range(1000):
            background.put(item)
    with pytest.raises(KeyError):
        background.finish()
    assert done == [0]


def test_abandoned_work_ends_after_the_item_at_hand() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    def work(item: int) -> None:
        begun.set()
        go_on.wait(10)
        done.append(item)

    background = Background(work, 'test')
    for item in range(3):
        background.put(item)
    begun.wait(10)
    threading.Timer(0.1, go_on.set).start()
    background.abandon()
    assert done == [0]
