"""
Two counts of one column as a small inline SVG: the reference as filled bars, the current data as an outline.

Pure, and made to be read in any light: fill against outline and hatching tell the two apart without color, every
plot carries a sentence for those who cannot see it, and the numbers come along for a table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from airflow_provider_mlops.drift.counts import CategoryCounts, NumberCounts

    Blocks = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

__all__ = [
    "Bar",
    "Share",
    "category_bars",
    "category_plot",
    "distance_plot",
    "number_bars",
    "number_plot",
    "percent",
    "short",
]

MIN_BLOCKS = 6  # as in the check: fewer blocks cannot estimate a variance
SLOTS = 22  # about how many bins a plot shows
SLOT_MASS = 0.1  # a bin that holds more is split as far as the profile's bins allow
CATEGORIES = 10  # categories shown one by one
WIDTH, HEIGHT = 360, 176
LEFT, RIGHT, TOP, BOTTOM = 36, 6, 10, 20


@dataclass(frozen=True, slots=True)
class Share:
    """A share of rows, 0..1, with the interval that the plot draws around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin or category. The reference's interval is where the share of a usual window would lie."""

    label: str
    reference: Share
    current: Share


def wilson(count: int, rows: int) -> Share:
    """Return a share with its 95 % interval; source: Wilson (1927)."""
    if rows == 0:
        return Share(0.0, 0.0, 0.0)
    z, p = 1.96, count / rows
    center = (p + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(p * (1 - p) / rows + z * z / (4 * rows * rows))
    return Share(p, max(0.0, center - half), min(1.0, center + half))


def _usual(count: int, rows: int, blocks: Floats) -> Share:
    """Return the reference's share with the range of a usual window: from its time blocks, else from its rows."""
    share = wilson(count, rows)
    k = blocks.size
    if k < MIN_BLOCKS:
        return share
    from scipy.special import stdtrit  # noqa: PLC0415 - loads at use, never at parse time

    half = float(stdtrit(k - 1, 0.975)) * float(blocks.std(ddof=1)) * math.sqrt(1 + 1 / k)
    middle = float(blocks.mean())
    return Share(share.value, max(0.0, min(share.low, middle - half)), min(1.0, max(share.high, middle + half)))


def _block_shares(blocks: Blocks, full: Blocks) -> Floats:
    chosen = blocks[full].astype(np.float64) if full.size else np.zeros((0, blocks.shape[1]))
    shares: Floats = chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1.0)
    return shares


def number_bars(reference: NumberCounts, current: NumberCounts, full: Blocks) -> tuple[list[Bar], list[float], int]:
    """
    Return the bars, the edges between them, and the edge at which the two distributions are furthest apart.

    Bars are unions of the profile's own bins, so every count is exact: near equal widths over the middle 99 % of the
    values, finer where many rows lie, and with a cut at the largest gap.

    :param full: positions of the reference's full time blocks.
    """
    n, m = max(reference.rows, 1), max(current.rows, 1)
    edges = reference.edges
    a, b = reference.counts / n, current.counts / m
    gap = int(np.argmax(np.abs(np.cumsum(a - b)[:-1]))) if edges.size else 0
    cuts = _cuts(edges, a, b, gap)
    starts = np.concatenate([[0], np.asarray(cuts, dtype=np.int64) + 1])
    merged_a = np.add.reduceat(reference.counts, starts)
    merged_b = np.add.reduceat(current.counts, starts)
    shares = np.add.reduceat(_block_shares(reference.blocks, full), starts, axis=1)
    ends = [float(edges[cut]) for cut in cuts]
    bars = [
        Bar(label, _usual(int(x), reference.rows, shares[:, i]), wilson(int(y), current.rows))
        for i, (label, x, y) in enumerate(zip(_labels(ends), merged_a, merged_b, strict=True))
    ]
    return bars, ends, cuts.index(gap) if cuts else 0


def _cuts(edges: Floats, reference: Floats, current: Floats, gap: int) -> list[int]:
    """Return the positions of the edges at which a bar ends, from each side's share of rows per bin."""
    if edges.size <= SLOTS:
        return list(range(edges.size))
    total = np.cumsum(reference)
    low, high = (float(edges[min(int(np.searchsorted(total, q)), edges.size - 1)]) for q in (0.005, 0.995))
    step = (high - low) / SLOTS * 0.999
    mass = np.maximum(reference, current)
    cuts: list[int] = []
    begin, held = low, 0.0
    for position, edge in enumerate(edges):
        held += float(mass[position])
        wide = low <= edge <= high and (edge - begin >= step or not cuts)
        if wide or held >= SLOT_MASS:
            cuts.append(position)
            begin, held = float(edge), 0.0
    nearest = min(cuts, key=lambda cut: (abs(edges[cut] - edges[gap]), cut), default=gap)
    return sorted({gap, *cuts} - ({nearest} - {gap}))


def _labels(ends: Sequence[float]) -> list[str]:
    if not ends:
        return ["all values"]
    if _whole_numbers(ends):
        return [f"up to {short(ends[0])}", *map(short, ends[1:]), f"over {short(ends[-1])}"]
    middle = [f"{short(a)} to {short(b)}" for a, b in pairwise(ends)]
    return [f"up to {short(ends[0])}", *middle, f"over {short(ends[-1])}"]


def _whole_numbers(ends: Sequence[float]) -> bool:
    """Return whether every bin holds one whole number."""
    return all(end == round(end) for end in ends) and all(b - a == 1 for a, b in pairwise(ends))


def category_bars(reference: CategoryCounts, current: CategoryCounts, full: Blocks) -> list[Bar]:
    """Return a bar for each of the most frequent or most changed values, and one for all others together."""
    n, m = reference.rows, current.rows
    names = {*reference.counts, *current.counts}
    share = {
        name: (reference.counts.get(name, 0) / max(n, 1), current.counts.get(name, 0) / max(m, 1)) for name in names
    }
    by_weight = sorted(names, key=lambda name: (-max(share[name]), name))
    by_change = sorted(names, key=lambda name: (-abs(share[name][0] - share[name][1]), name))
    chosen = {*by_weight[: CATEGORIES - 3], *by_change[:3]}
    chosen |= set(by_weight[:CATEGORIES][: CATEGORIES - len(chosen)])
    shown = [name for name in by_weight if name in chosen]
    blocks = _block_shares(reference.blocks, full)
    cell = {name: position for position, name in enumerate(reference.cells)}
    nothing = np.zeros(0)
    bars = [
        Bar(
            name,
            _usual(reference.counts.get(name, 0), n, blocks[:, cell[name]] if name in cell else nothing),
            wilson(current.counts.get(name, 0), m),
        )
        for name in shown
    ]
    rest = len(names) - len(shown)
    others = [side.rows - sum(side.counts.get(name, 0) for name in shown) for side in (reference, current)]
    if rest > 0 or any(others):
        beyond = reference.tail_rows + current.tail_rows > 0
        label = f"all other values ({'more than ' if beyond else ''}{rest:,})"
        bars.append(Bar(label, wilson(others[0], n), wilson(others[1], m)))
    return bars


def number_plot(bars: Sequence[Bar], ends: Sequence[float], gap: int, *, label: str) -> str:
    """Return the SVG of a numeric column. *label* is read out instead of the plot."""
    top = max([bar.current.high for bar in bars] + [bar.reference.high for bar in bars] + [1e-9])
    step = _nice(top / 2)
    top = max(top, step)
    slot = (WIDTH - LEFT - RIGHT) / len(bars)
    floor = HEIGHT - BOTTOM

    def x(position: float) -> str:
        return _coordinate(LEFT + position * slot)

    def y(share: float) -> str:
        return _coordinate(floor - share / top * (floor - TOP))

    filled = "".join(f"M{x(i)} {floor}V{y(b.reference.value)}H{x(i + 1)}V{floor}Z" for i, b in enumerate(bars))
    usual = "".join(
        f"M{x(i + 0.06)} {y(b.reference.low)}V{y(b.reference.high)}H{x(i + 0.94)}V{y(b.reference.low)}Z"
        for i, b in enumerate(bars)
    )
    line = f"M{x(0)} {floor}" + "".join(f"V{y(b.current.value)}H{x(i + 1)}" for i, b in enumerate(bars)) + f"V{floor}"
    whiskers = "".join(f"M{x(i + 0.5)} {y(b.current.low)}V{y(b.current.high)}" for i, b in enumerate(bars))
    grid = "".join(
        f'<path class="g" d="M{LEFT} {y(level)}H{WIDTH - RIGHT}"/>'
        f'<text class="t" x="{LEFT - 4}" y="{y(level)}" dy="4" text-anchor="end">{level * 100:.4g}%</text>'
        for level in _levels(step, top)
    )
    every = max(1, math.ceil(len(ends) / 5))
    place = 0.5 if _whole_numbers(ends) else 1.0
    ticks = "".join(
        f'<path class="g" d="M{x(i + place)} {floor}v4"/>'
        f'<text class="t" x="{x(i + place)}" y="{HEIGHT - 5}" text-anchor="middle">{short(end)}</text>'
        for i, end in enumerate(ends)
        if i % every == every // 2
    )
    hover = "".join(
        f'<rect class="h" x="{x(i)}" y="{TOP}" width="{_coordinate(slot)}" height="{floor - TOP}">'
        f"<title>{_hover(bar)}</title></rect>"
        for i, bar in enumerate(bars)
    )
    cut = f'<path class="k" d="M{x(gap + 1)} {TOP - 6}V{floor}"/>' if ends else ""
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{grid}'
        f'<path class="r" d="{filled}"/><path class="u" d="{usual}"/>{cut}'
        f'<path class="c" d="{line}"/><path class="w" d="{whiskers}"/>'
        f'<path class="a" d="M{LEFT} {floor}H{WIDTH - RIGHT}"/>{ticks}{hover}</svg>'
    )


def category_plot(bars: Sequence[Bar], *, label: str) -> str:
    """Return the SVG of a text or boolean column: two horizontal bars per value. *label* is read out instead."""
    row, bar_height = 34, 8
    height = row * len(bars) + 6
    top = max([bar.current.high for bar in bars] + [bar.reference.high for bar in bars] + [1e-9])
    full = WIDTH - 8

    def x(share: float) -> str:
        return _coordinate(1 + share / top * full)

    parts = []
    for i, bar in enumerate(bars):
        base = i * row + 14
        name = bar.label if len(bar.label) <= 36 else bar.label[:35] + "…"
        shares = f"{percent(bar.reference.value)} → {percent(bar.current.value)}"
        ref_y, cur_y = base + 3, base + 3 + bar_height
        middle = (ref_y + bar_height / 2, cur_y + bar_height / 2)
        parts.append(
            f'<text class="n" x="1" y="{base}">{escape(name)}</text>'
            f'<text class="t" x="{WIDTH - 4}" y="{base}" text-anchor="end">{shares}</text>'
            f'<path class="r" d="M1 {ref_y}H{x(bar.reference.value)}v{bar_height}H1Z"/>'
            f'<path class="u" d="M{x(bar.reference.low)} {ref_y}H{x(bar.reference.high)}v{bar_height}'
            f'H{x(bar.reference.low)}Z"/>'
            f'<path class="c" d="M1 {cur_y}H{x(bar.current.value)}v{bar_height}H1Z"/>'
            f'<path class="w" d="M{x(bar.current.low)} {middle[1]}H{x(bar.current.high)}"/>'
            f'<rect class="h" x="0" y="{i * row}" width="{WIDTH}" height="{row}"><title>{_hover(bar)}</title></rect>'
        )
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def distance_plot(usual: Sequence[float], now: float, chance: float, *, label: str) -> str:
    """
    Return the SVG of a column of vectors: how far the current data lies from the reference, on one axis.

    :param usual: the distance of each full time block of the reference from its others; may be empty.
    :param chance: the distance that rows of the same world have on average.
    :param label: is read out instead of the plot.
    """
    top = max([now, chance, *usual, 1e-9])
    step = _nice(top)
    rows = [("reference's time blocks", usual, "r")] * bool(usual) + [("current data", [now], "c")]
    floor = 36 * len(rows) + 12

    def x(distance: float) -> str:
        return _coordinate(LEFT + distance / top * (WIDTH - LEFT - RIGHT - 8))

    parts = [f'<path class="k" d="M{x(chance)} 8V{floor}"/>']
    for y, (name, distances, kind) in zip(range(30, floor, 36), rows, strict=False):
        marks = "".join(f"M{x(found)} {y - 6}l5 6l-5 6l-5 -6Z" for found in distances)
        parts.append(
            f'<text class="n" x="{WIDTH - RIGHT}" y="{y - 13}" text-anchor="end">{name}</text>'
            f'<path class="g" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>'
            f'<path class="{kind}" d="{marks}"/>'
        )
    ticks = "".join(
        f'<path class="g" d="M{x(level)} {floor}v4"/>'
        f'<text class="t" x="{x(level)}" y="{floor + 16}" text-anchor="middle">{short(level)}</text>'
        for level in (0.0, *_levels(step / 2, top))
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {floor + 22}" role="img" aria-label="{escape(label)}">{"".join(parts)}'
        f'<path class="a" d="M{LEFT} {floor}H{WIDTH - RIGHT}"/>{ticks}</svg>'
    )


def percent(share: float) -> str:
    """
    Return a share as per cent, with as many digits as it deserves.

    >>> [percent(share) for share in (0, 0.00004, 0.0123, 0.256, 0.9996, 1)]
    ['0%', '< 0.01%', '1.2%', '26%', '99.96%', '100%']
    """
    value = share * 100
    if value in (0.0, 100.0):
        return f"{value:.0f}%"
    if value < 0.01:
        return "< 0.01%"
    if value < 1 or value > 99.5:
        return f"{value:.2f}%"
    return f"{value:.1f}%" if value < 10 else f"{value:.0f}%"


def short(value: float) -> str:
    """
    Return a number in few characters.

    >>> [short(value) for value in (7.0, 0.03695, 1013.25, 1234567.0)]
    ['7', '0.0369', '1013', '1.23e+06']
    """
    if not math.isfinite(value):
        return str(value)
    if value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.4g}" if 100 <= abs(value) < 10_000 else f"{value:.3g}"


def _hover(bar: Bar) -> str:
    return escape(
        f"{bar.label}: reference {percent(bar.reference.value)} "
        f"(usual {percent(bar.reference.low)} to {percent(bar.reference.high)}), "
        f"current {percent(bar.current.value)} ({percent(bar.current.low)} to {percent(bar.current.high)})"
    )


def _nice(value: float) -> float:
    """Return the largest of 1, 2, 2.5, 5 times a power of ten that is at most *value*."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in (1, 2, 2.5, 5) if factor * power <= value * 1.0001)


def _levels(step: float, top: float) -> list[float]:
    return [step * i for i in range(1, int(top / step + 1e-6) + 1)]


def _coordinate(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
