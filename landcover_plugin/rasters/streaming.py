"""Work on many windows: read and computed on all cores, handed on in order, in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from tqdm import tqdm


def in_order[Item, Result](
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    desc: str,
    unit: str = 'window',
    size_of: Callable[[Item], int] | None = None,
    progress: bool = True,
) -> Iterator[Result]:
    """Results of ``work`` for each item, in the order of the items, computed in threads a little ahead.

    GDAL and the counting release the interpreter, so threads use all cores. At most one result for each thread waits
    while one is used, so memory does not grow with the number of items.

    Args:
        work: Called in several threads at once.
        items: What it is called with.
        desc: Name on the progress bar.
        unit: What the progress bar counts.
        size_of: How many units an item is (default: 1).
        progress: Show a progress bar on stderr, where that is a terminal.
    """
    count = processors()
    sizes = [size_of(item) for item in items] if size_of else [1] * len(items)
    bar = tqdm(
        total=sum(sizes),
        desc=desc,
        unit=unit,
        unit_scale=size_of is not None,
        disable=None if progress else True,
        leave=False,
    )
    pool = ThreadPoolExecutor(count, thread_name_prefix=desc)
    waiting: deque[tuple[Future[Result], int]] = deque()
    todo = iter(zip(items, sizes, strict=True))
    try:
        with bar:
            while True:
                while len(waiting) <= count and (item := next(todo, None)) is not None:
                    waiting.append((pool.submit(work, item[0]), item[1]))
                if not waiting:
                    return
                future, size = waiting.popleft()
                yield future.result()
                del future
                bar.update(size)
    finally:
        pool.shutdown(cancel_futures=True)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
