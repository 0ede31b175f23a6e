"""How long requests took: a histogram in Prometheus' text form."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def label(text: str) -> str:
    """A label's value as it is written."""
    return text.translate(_ESCAPED)


class Durations:
    """How long requests took, by method, route and status."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[tuple[str, str, int], Counter[int]] = defaultdict(Counter)
        self._sums: dict[tuple[str, str, int], float] = defaultdict(float)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request in."""
        with self._lock:
            self._buckets[method, route, status][bisect_left(BUCKETS_S, seconds)] += 1
            self._sums[method, route, status] += seconds

    def lines(self) -> Iterator[str]:
        """The histogram's lines."""
        name = "steplog_http_request_seconds"
        yield f"# TYPE {name} histogram"
        with self._lock:
            found = {labels: dict(buckets) for labels, buckets in self._buckets.items()}
            sums = dict(self._sums)
        for labels, buckets in sorted(found.items()):
            method, route, status = labels
            told = f'method="{method}",route="{label(route)}",status="{status}"'
            count = 0
            for at, bound in enumerate(BUCKETS_S):
                count += buckets.get(at, 0)
                yield f'{name}_bucket{{{told},le="{bound}"}} {count}'
            count += buckets.get(len(BUCKETS_S), 0)
            yield f'{name}_bucket{{{told},le="+Inf"}} {count}'
            yield f"{name}_sum{{{told}}} {sums[labels]:.6f}"
            yield f"{name}_count{{{told}}} {count}"
