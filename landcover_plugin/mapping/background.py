"""Work on what comes in, in a thread of its own, so that who hands it over need not wait."""

import queue
import threading
from collections.abc import Callable
from typing import Any


class Background[Item]:
    """Calls a function with items in the order in which they are put, in one thread, a few items behind at most.

    Args:
        work: What is to be done with an item.
        name: Of the thread.
        depth: How many items may wait.
    """

    def __init__(self, work: Callable[[Item], object], name: str, depth: int = 2) -> None:
        self._work = work
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand an item over; waits while too many wait.

        Raises:
            BaseException: What the work on an earlier item raised.
        """
        self._raise()
        self._queue.put(item)
        self._raise()

    def finish(self) -> None:
        """Wait until all is done.

        Raises:
            BaseException: What the work raised.
        """
        self._queue.put(None)
        self._thread.join()
        self._raise()

    def abandon(self) -> None:
        """Finish the item at hand and drop the others; raises nothing."""
        self._error = self._error or RuntimeError('abandoned')
        while self._thread.is_alive():
            try:
                self._queue.put_nowait(None)
            except queue.Full:
                self._thread.join(0.05)
            else:
                self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._work(item)
                except BaseException as e:  # for who puts the next item
                    self._error = e
            del item

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
