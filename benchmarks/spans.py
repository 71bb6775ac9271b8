"""How long things took, told by their percentiles."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Span:
    """Some durations, in seconds."""

    def __init__(self, durations: Sequence[float]) -> None:
        self._sorted = sorted(durations)

    def percentile(self, share: float) -> float:
        """The least duration that this share of them does not exceed."""
        return self._sorted[min(len(self._sorted) - 1, int(share * len(self._sorted)))]

    @property
    def worst(self) -> float:
        """The longest."""
        return self._sorted[-1]

    def figures(self) -> list[float]:
        """The shortest, the median, the 99th percentile and the longest."""
        return [self._sorted[0], self.percentile(0.5), self.percentile(0.99), self.worst]


@contextmanager
def quietly() -> Iterator[None]:
    """Aborts that are asked for need no lines in a log."""
    logger = logging.getLogger("hostline")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
