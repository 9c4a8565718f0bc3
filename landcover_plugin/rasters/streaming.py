"""Work on many windows: read and computed on all cores, handed on in order, in bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from tqdm import tqdm

from ..machine import processors


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
    try:
        with bar:
            for result, size in zip(ahead(pool, work, items, depth=count), sizes, strict=True):
                yield result
                del result
                bar.update(size)
    finally:
        pool.shutdown(cancel_futures=True)


def ahead[Item, Result](
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], *, depth: int
) -> Iterator[Result]:
    """Results of ``work`` for each item, in the order of the items.

    While one is used, up to ``depth`` others are computed or wait.

    Args:
        pool: Computes them; is left open.
        work: Called in several threads at once.
        items: What it is called with; taken as they are needed.
        depth: How far to go ahead.
    """
    waiting: deque[Future[Result]] = deque()
    todo = iter(items)
    more = True
    while True:
        while more and len(waiting) <= depth:
            try:
                waiting.append(pool.submit(work, next(todo)))
            except StopIteration:
                more = False
        if not waiting:
            return
        future = waiting.popleft()
        yield future.result()
        del future
