"""What is counted, as plain numbers, and how they are told in Prometheus' terms.

An exchange is counted at a dozen places, so each must cost next to nothing: a number is changed without a lock, by one
thread only, and read by any. A crash begins the counts anew.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]
Kind = TypeVar("Kind", "Number", "Spread")


class Number:
    """A count or a level."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, by: float = 1) -> None:
        self.value += by

    def dec(self) -> None:
        self.value -= 1

    def set(self, value: float) -> None:
        self.value = value


class Spread:
    """A histogram: how many values lie up to each bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Each bound with how many values are not above it."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))

    @property
    def sum(self) -> float:
        return self._sum


Series = Mapping[Labels, Number | Spread]


def family(name: str, kind: str, title: str, labels: Sequence[str], series: Series) -> Family:
    """One metric with all its series, as prometheus_client writes it."""
    match kind:
        case "histogram":
            spreads = HistogramMetricFamily(name, title, labels=labels)
            for values, each in _of(Spread, series):
                spreads.add_metric(values, each.buckets(), each.sum)
            return spreads
        case "counter":
            numbers: CounterMetricFamily | GaugeMetricFamily = CounterMetricFamily(name, title, labels=labels)
        case _:
            numbers = GaugeMetricFamily(name, title, labels=labels)
    for values, number in _of(Number, series):
        numbers.add_metric(values, number.value)
    return numbers


def _of(kind: type[Kind], series: Series) -> Iterator[tuple[Labels, Kind]]:
    """Those series, of which there may become more meanwhile."""
    return ((labels, each) for labels, each in list(series.items()) if isinstance(each, kind))
