"""How far a map is: a bar in a terminal, a line now and then elsewhere."""

import logging
import sys
import time

from tqdm import tqdm

log = logging.getLogger(__name__)

#: Seconds between lines where stderr is no terminal.
INTERVAL = 30.0


class Progress:
    """Counts the pixels of a map.

    Args:
        total: Pixels to map.
        done: Pixels that an earlier run mapped.
        name: What is shown in front.
        quiet: Show nothing.
    """

    def __init__(self, total: int, done: int = 0, name: str = 'map', quiet: bool = False) -> None:
        self.total, self.first, self.done, self.name = total, done, done, name
        self._quiet = quiet
        self.begun = self._told = time.monotonic()
        self._bar = tqdm(
            total=total / 1e6,
            initial=done / 1e6,
            desc=name,
            unit='Mpx',
            disable=quiet or not sys.stderr.isatty(),
            bar_format='{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} Mpx [{elapsed}<{remaining}, {rate_fmt}]',
            leave=False,
        )

    def add(self, pixels: int) -> None:
        """Count pixels that are mapped now."""
        self.done += pixels
        self._bar.update(pixels / 1e6)
        now = time.monotonic()
        if self._bar.disable and not self._quiet and now - self._told >= INTERVAL and self.done < self.total:
            self._told = now
            log.info('%s', self.line())

    def line(self) -> str:
        """How far it is, how fast, and how long it will take."""
        rate = (self.done - self.first) / max(time.monotonic() - self.begun, 1e-9)
        left = f'{duration((self.total - self.done) / rate)} left' if rate > 0 else 'no pixel yet'
        share = 100 * self.done / max(self.total, 1)
        done = f'{self.done / 1e6:.1f} of {self.total / 1e6:.1f} Mpx ({share:.0f} %)'
        return f'{self.name}: {done}, {rate / 1e6:.2f} Mpx/s, {left}'

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


def duration(seconds: float) -> str:
    """A duration in words.

    Examples:
        >>> duration(42.4), duration(150), duration(7300)
        ('42 s', '2.5 min', '2.0 h')
    """
    if seconds < 100:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.1f} min' if seconds < 6000 else f'{seconds / 3600:.1f} h'
