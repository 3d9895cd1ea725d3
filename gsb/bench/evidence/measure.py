"""``gsb bench evidence``: what the evidence log promises, measured and judged.

It writes only to a folder of its own, of which each part is removed when it is measured; a crash leaves it behind.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gsb.bench.evidence.made import Told, content
from gsb.bench.evidence.pace import Pace, pace
from gsb.bench.evidence.receipts import Point, receipts
from gsb.bench.evidence.verifying import Verified, verifying
from gsb.bench.served import on_disk


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    entries: int
    """Recorded in each turn."""
    pairs: int
    verified: int
    largest: int
    """Entries of the largest log that receipts are made from."""
    receipts: int
    """In each log."""


@dataclass(frozen=True, slots=True)
class Bars:
    """What is promised."""

    recorded: float = 10_000
    """Entries a second at least, or"""
    share: float = 0.5
    """of raw, whichever is lower."""
    verified: float = 15_000
    """Entries a second at least, by the bus's own verifier."""
    receipt: float = 0.005
    """Seconds at most for a receipt from the largest log, in the median."""


async def main(folder: Path | None, plan: Plan, bars: Bars | None = None) -> int:
    """Measure and print. 0: good; 1: something is below its bar; 2: the folder is not on a disk."""
    if (place := on_disk(folder)) is None:
        return 2
    bars, size = bars or Bars(), len(content(0))
    with _new(place) as root:
        paced = await pace(root, plan.entries, plan.pairs, _telling("recorded", plan.entries * plan.pairs))
    good = [_judge_pace(paced, plan, bars, size)]
    with _new(place) as root:
        rates = await verifying(root, plan.verified, _telling("made, then verified", plan.verified))
    good.append(_judge_verified(rates, plan, bars, size))
    with _new(place) as root:
        curve = await receipts(root, plan.largest, plan.receipts, _telling("in the log for receipts", plan.largest))
    good.append(_judge_receipts(curve, plan, bars))
    return 0 if all(good) else 1


@contextmanager
def _new(place: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gsb-bench-", dir=place) as name:
        yield Path(name)


def _telling(what: str, entries: int) -> Told:
    """Tells standard error about every tenth of so many entries, once or as often as they are counted anew."""
    last = 0

    def told(done: int) -> None:
        nonlocal last
        if abs(done - last) >= entries // 10:
            last = done
            print(f"{done:>12,} entries {what}", file=sys.stderr)

    return told


def _judge_pace(paced: Pace, plan: Plan, bars: Bars, size: int) -> bool:
    least = min(bars.recorded, bars.share * paced.raw)
    print(f"{plan.entries:,} entries of {size} bytes sequenced and published, median of {plan.pairs} pairs")
    print(f"recorder       {paced.recorder:>10,.0f} entries/s  (at least {least:,.0f})")
    print(f"raw            {paced.raw:>10,.0f} entries/s  (hashed and appended, durable once a checkpoint)")
    return paced.recorder >= least


def _judge_verified(rates: Verified, plan: Plan, bars: Bars, size: int) -> bool:
    print(f"{plan.verified:,} entries of {size} bytes verified, every tile and the root")
    print(f"gsb log verify {rates.bus:>10,.0f} entries/s  (at least {bars.verified:,.0f})")
    print(f"gsb_verify.py  {rates.auditor:>10,.0f} entries/s")
    return rates.bus >= bars.verified


def _judge_receipts(curve: list[Point], plan: Plan, bars: Bars) -> bool:
    print(f"{'receipt from':21}{'p50':>8}{'p99':>8}  ms of {plan.receipts}")
    for point in curve:
        print(f"{point.size:>13,} entries{point.median * 1000:>8.2f}{point.p99 * 1000:>8.2f}")
    print(f"{'largest, p50':21}{curve[-1].median * 1000:>8.2f} ms (under {bars.receipt * 1000:g})")
    return curve[-1].median < bars.receipt
