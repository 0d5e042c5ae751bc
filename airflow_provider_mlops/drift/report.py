"""A drift report for people: as one HTML file that needs no network and no script, and as lines of text. Pure."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.drift.check import MEASURED, Variation, Verdict, counted
from airflow_provider_mlops.drift.plots import (
    Bar,
    category_bars,
    category_plot,
    distance_plot,
    number_bars,
    number_plot,
    percent,
    short,
)
from airflow_provider_mlops.drift.report_style import CSS, DEFS
from airflow_provider_mlops.drift.vectors import distances

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_mlops.drift.check import ColumnReport, DriftReport
    from airflow_provider_mlops.drift.counts import CategoryCounts, Counts
    from airflow_provider_mlops.drift.profile import ColumnProfile, DataProfile

__all__ = ["html", "lines", "ranked"]

MAX_PLOTS = 60  # further columns stand in the table only
MAX_ROWS = 400  # further columns stand in the JSON only
MAX_HISTORY = 60
MAX_SEGMENT_PLOTS = 12
NEW_SHOWN = 12  # new or missing categories named one by one

_WORDS = {
    Verdict.DRIFT: ("▲", "Drift"),
    Verdict.NO_DRIFT: ("●", "No drift"),
    Verdict.INSUFFICIENT: ("◐", "Insufficient"),
    Verdict.BAD_DATA: ("✕", "Bad data"),
    Verdict.NO_DATA: ("○", "No data"),
}
_NOTES = {
    "variation_unknown": "The reference holds too few time blocks to show how much quiet periods differ from each "
    "other, so rows were taken as independent. Treat an alert with care: it never starts a retraining.",
    "reference_small": "The reference is less than five times the window. Some references that small alarm again and "
    "again; a longer one is steadier.",
    "sampled": "Of the largest files only some row groups were read, spread over files and time. Rows of one group may "
    "resemble each other, so a sample varies a little more than the same number of single rows.",
}


def html(
    report: DriftReport,
    reference: DataProfile,
    current: DataProfile,
    *,
    title: str,
    history: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """
    Return a page that shows *report*, under 1 MB for 50 columns.

    :param reference: the profile that was compared with, the same layout as *current*.
    :param title: what was checked, such as the model's name.
    :param history: earlier checks, oldest first, as payloads of ``drift.checked``: ``verdict``, ``sentence`` and
        ``window`` or ``numbers.window_end``.
    """
    columns = ranked(report)
    plotted = [column for column in columns if _plottable(column.name, reference, current)][:MAX_PLOTS]
    anchors = {column.name: f"c{place}" for place, column in enumerate(plotted)}
    quiet = [column for column in plotted if column.verdict is Verdict.NO_DRIFT and column.reason != "too_small"]
    loud = [column for column in plotted if column not in quiet]
    full = reference.full_blocks()

    def panels(chosen: Iterable[ColumnReport]) -> str:
        return "".join(
            _panel(column, reference.columns[column.name], current.columns[column.name], full, anchors[column.name])
            for column in chosen
        )

    looks = _segment_panels(report, reference, current) + panels(loud)
    body = [
        _head(report, reference, current, title),
        _history(history),
        _violations(columns),
        _segments(report),
        _table(columns, anchors, report),
        _small(columns),
        _not_compared(report),
        _legend(report) if plotted else "",
        f'<section class="panels" aria-label="Columns that need a look">{looks}</section>' if looks else "",
        f'<details class="quiet"{"" if loud else " open"}><summary>Columns that have not moved ({len(quiet)})</summary>'
        f'<div class="panels">{panels(quiet)}</div></details>'
        if quiet
        else "",
        _left_out(report, reference, len(plotted)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}: {_WORDS[report.verdict][1].lower()}</title><style>{CSS}</style></head>"
        f"<body>{DEFS}<main>{''.join(body)}</main></body></html>"
    )


def ranked(report: DriftReport) -> list[ColumnReport]:
    """Return the columns as a reader wants them: what decided first, then by verdict, then by size of the change."""
    top = {name: place for place, name in enumerate(report.top_columns)}
    order = (Verdict.BAD_DATA, Verdict.DRIFT, Verdict.NO_DATA, Verdict.INSUFFICIENT, Verdict.NO_DRIFT)

    def key(column: ColumnReport) -> tuple[Any, ...]:
        return (
            top.get(column.name, len(top)),
            order.index(column.verdict),
            column.reason != "too_small",
            -(column.effect or 0.0),
            column.name,
        )

    return sorted(report.columns.values(), key=key)


def lines(report: DriftReport, limit: int = 20) -> list[str]:
    """Return the columns as at most *limit* aligned lines of text under a line of titles, as `ranked` orders them."""
    columns = ranked(report)
    shown = columns if len(columns) <= limit else columns[: limit - 1]
    table = [("column", "verdict", "change", "95% interval", "limit", "p adjusted", "reason")]
    for column in shown:
        interval = [column.effect_low, column.effect_high]
        table.append(
            (
                column.name if len(column.name) <= 40 else column.name[:39] + "…",
                _shown(column)[2].lower(),
                "" if column.effect is None else _effect(column.effect),
                "" if None in interval else " to ".join(_effect(value) for value in interval if value is not None),
                "" if column.limit is None else _effect(column.limit),
                "" if column.p_adjusted is None else f"{column.p_adjusted:.2g}",
                column.reason,
            )
        )
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    if len(shown) < len(columns):
        text.append(f"and {counted(len(columns) - len(shown), 'further column')}")
    for value, part in report.segments.items():
        text.append(f"{report.segment} = {_segment_name(value)}: {_WORDS[part.verdict][1].lower()}. {part.sentence}")
    return text


def _head(report: DriftReport, reference: DataProfile, current: DataProfile, title: str) -> str:
    needed = report.rows.get("needed")
    facts = [
        ("Current", f"{current.rows:,} rows", _span(current)),
        ("Reference", f"{reference.rows:,} rows", _span(reference)),
        ("False alarms allowed", f"{percent(report.alpha)} of windows", f"{report.tests:,} tests, corrected"),
        (
            "Natural variation",
            "known" if report.variation is Variation.KNOWN else "unknown",
            f"from {reference.full_blocks().size} time blocks of the reference"
            if report.variation is Variation.KNOWN
            else "rows were taken as independent",
        ),
    ]
    if needed and report.verdict in {Verdict.INSUFFICIENT, Verdict.NO_DATA}:
        facts.append(("Rows needed", f"{needed:,}", "before anything can be said"))
    cards = "".join(
        f"<div><dt>{escape(name)}</dt><dd><b>{escape(value)}</b><span>{escape(more)}</span></dd></div>"
        for name, value, more in facts
    )
    notes = "".join(f'<p class="note">{escape(_NOTES.get(note, note))}</p>' for note in report.notes)
    plain = _plain(report)
    return (
        f'<header class="{report.verdict.value}"><p class="title">{escape(title)}</p>'
        f"<h1>{_badge(report.verdict)}<span>{escape(report.sentence)}</span></h1>"
        f'<dl class="facts">{cards}</dl>{plain}{notes}</header>'
    )


def _plain(report: DriftReport) -> str:
    if report.verdict in {Verdict.BAD_DATA, Verdict.NO_DATA} or not report.plain_alarm or report.drifted:
        return ""
    return (
        f'<p class="note">A test per column at 0.05 that takes rows as independent would have raised an alarm over '
        f"{counted(len(report.plain_columns), 'column')}: {escape(', '.join(report.plain_columns[:8]))}"
        f"{'…' if len(report.plain_columns) > 8 else ''}.</p>"
    )


def _history(history: Sequence[Mapping[str, Any]] | None) -> str:
    if not history:
        return ""
    cells = []
    for item in history[-MAX_HISTORY:]:
        verdict = Verdict(item["verdict"])
        when = str((item.get("numbers") or {}).get("window_end") or item.get("window") or "")
        mark, word = _WORDS[verdict]
        text = escape(f"{when[:10]}: {word.lower()}. {item.get('sentence', '')}")
        cells.append(
            f'<li class="{verdict.value}" title="{text}"><span aria-hidden="true">{mark}</span>'
            f'<span class="hidden">{text}</span></li>'
        )
    counts = {word: sum(1 for item in history if item["verdict"] == verdict) for verdict, (_, word) in _WORDS.items()}
    summary = ", ".join(f"{count} {word.lower()}" for word, count in counts.items() if count)
    return (
        f'<section aria-label="Earlier checks"><h2>Earlier checks <small>{summary}; newest last</small></h2>'
        f'<ol class="strip">{"".join(cells)}</ol></section>'
    )


def _violations(columns: Sequence[ColumnReport]) -> str:
    bad = [column for column in columns if column.verdict is Verdict.BAD_DATA]
    if not bad:
        return ""
    items = "".join(
        f"<li><b>{escape(column.name)}</b> <code>{escape(column.reason)}</code> {escape(column.sentence)}</li>"
        for column in bad[:MAX_ROWS]
    )
    return (
        f'<section class="bad"><h2>Contract violations <small>{len(bad)}</small></h2>'
        "<p>This data breaks what the reference promises. It cannot start a training.</p>"
        f"<ul>{items}</ul></section>"
    )


def _segments(report: DriftReport) -> str:
    if report.segment is None or not report.segments:
        return ""
    rows = "".join(
        f'<tr class="{part.verdict.value}"><th scope="row">{escape(_segment_name(value))}</th>'
        f'<td data-label="Verdict">{_badge(part.verdict)}</td>'
        f'<td data-label="Rows" class="num">{part.rows["current"]:,}</td>'
        f'<td data-label="Why" class="why">{escape(part.sentence)}</td></tr>'
        for value, part in sorted(report.segments.items(), key=lambda item: not item[1].drifted)
    )
    drifted = f"{sum(part.drifted for part in report.segments.values())} of {len(report.segments)} drifted"
    return (
        f"<section><h2>Segments by {escape(report.segment)} <small>{drifted}</small></h2>"
        '<table class="ranked"><thead><tr><th scope="col">Value</th><th scope="col">Verdict</th>'
        '<th scope="col" class="num">Rows</th><th scope="col">Why</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )


def _segment_panels(report: DriftReport, reference: DataProfile, current: DataProfile) -> str:
    """Return a plot of the column that moved most in each segment that drifted, unless the whole moved alike."""
    if reference.segments is None or current.segments is None:
        return ""
    panels: list[str] = []
    for value, part in report.segments.items():
        before, now = reference.segments.profiles[value], current.segments.profiles[value]
        for name in part.top_columns[:1]:
            if report.columns[name].verdict is not Verdict.DRIFT and _plottable(name, before, now):
                column = replace(part.columns[name], name=f"{name}, {_segment_name(value)}")
                sides = before.columns[name], now.columns[name]
                panels.append(_panel(column, *sides, before.full_blocks(), f"s{len(panels)}"))
    return "".join(panels[:MAX_SEGMENT_PLOTS])


def _segment_name(value: str | None) -> str:
    if value is None:
        return "all other rows"
    return repr(value) if not value.strip() else value if len(value) <= 60 else value[:59] + "…"


def _small(columns: Sequence[ColumnReport]) -> str:
    small = [column for column in columns if column.reason == "too_small"]
    if not small:
        return ""
    items = "".join(f"<li><b>{escape(column.name)}</b> {escape(column.sentence)}</li>" for column in small[:MAX_ROWS])
    return f'<section><h2>Significant, but too small to matter</h2><ul class="plainlist">{items}</ul></section>'


def _not_compared(report: DriftReport) -> str:
    if not report.not_compared:
        return ""
    columns = [report.columns[name] for name in report.not_compared]
    items = "".join(f"<li><b>{escape(column.name)}</b> {escape(column.sentence)}</li>" for column in columns[:MAX_ROWS])
    return f'<section><h2>Not compared <small>{len(columns)}</small></h2><ul class="plainlist">{items}</ul></section>'


def _table(columns: Sequence[ColumnReport], anchors: Mapping[str, str], report: DriftReport) -> str:
    if not columns:
        return ""
    weighted = any(column.importance is not None for column in columns)
    scale = max([value for c in columns for value in (c.effect_high, c.effect, c.limit) if value is not None] + [0.1])
    scale = min(1.0, scale * 1.05)
    rows = "".join(_row(column, anchors.get(column.name), scale, weighted=weighted) for column in columns[:MAX_ROWS])
    hidden = len(columns) - MAX_ROWS
    more = f'<p class="note">{counted(hidden, "further column")} in the JSON report.</p>' if hidden > 0 else ""
    loud = len(report.top_columns)
    top = f" <small>{loud} {'stands' if loud == 1 else 'stand'} out</small>" if loud else ""
    return (
        f'<section><h2>Columns{top}</h2><table class="ranked"><thead><tr><th scope="col">Column</th>'
        '<th scope="col">Verdict</th><th scope="col">Change <span class="key">with 95% interval; '
        "<i>│</i> limit</span></th>"
        f'<th scope="col" class="num">Limit</th><th scope="col" class="num">p, adjusted</th>'
        f"{'<th scope=col class=num>Importance</th>' if weighted else ''}"
        f'<th scope="col">Why</th></tr></thead><tbody>{rows}</tbody></table>{more}</section>'
    )


def _row(column: ColumnReport, anchor: str | None, scale: float, *, weighted: bool) -> str:
    name = escape(column.name)
    link = f'<a href="#{anchor}">{name}</a>' if anchor else name
    limit = "" if column.limit is None else _effect(column.limit)
    p = "" if column.p_adjusted is None else _p(column.p_adjusted)
    importance = "" if column.importance is None else percent(column.importance)
    aside = "" if column.counts else ' <small class="aside">does not count for the verdict</small>'
    cells = [
        ("Verdict", "", _column_badge(column)),
        ("Change", "change", _gauge(column, scale)),
        ("Limit", "num", limit),
        ("p, adjusted", "num", p),
        *([("Importance", "num", importance)] if weighted else []),
        ("Why", "why", f"{escape(column.sentence)}{aside}"),
    ]
    return (
        f'<tr class="{_shown(column)[0]}"><th scope="row">{link}</th>'
        + "".join(
            f'<td data-label="{label}"{f" class={css}" if css else ""}>{text}</td>' if text else "<td></td>"
            for label, css, text in cells
        )
        + "</tr>"
    )


def _gauge(column: ColumnReport, scale: float) -> str:
    if column.effect is None:
        return ""
    low = column.effect if column.effect_low is None else column.effect_low
    high = column.effect if column.effect_high is None else column.effect_high

    def x(value: float) -> str:
        return f"{2 + min(value / scale, 1.0) * 116:.1f}"

    limit = ""
    if column.limit is not None and column.limit <= scale:
        limit = f'<path class="l" d="M{x(column.limit)} 1V17"/>'
    return (
        f'<span class="value">{_effect(column.effect)}</span>'
        f'<svg class="gauge" viewBox="0 0 120 18" aria-hidden="true"><path class="g" d="M2 9H118"/>'
        f'<path class="b" d="M2 9H{x(column.effect)}"/>{limit}'
        f'<path class="w" d="M{x(low)} 5V13M{x(low)} 9H{x(high)}M{x(high)} 5V13"/></svg>'
        f'<span class="range">{_effect(low)} to {_effect(high)}</span>'
    )


def _panel(column: ColumnReport, reference: ColumnProfile, current: ColumnProfile, full: Counts, anchor: str) -> str:
    return (
        f'<article id="{anchor}" class="{_shown(column)[0]}"><h3>{_column_badge(column)}'
        f"<span>{escape(column.name)}</span></h3>{_size(column)}"
        f"{_picture(column, reference, current, full)}</article>"
    )


def _size(column: ColumnReport) -> str:
    if column.effect is None or column.effect_low is None or column.effect_high is None or column.limit is None:
        return f"<p>{escape(column.sentence)}</p>"
    return (
        f"<p>Change <b>{_effect(column.effect)}</b> ({_effect(column.effect_low)} to {_effect(column.effect_high)}), "
        f"limit {_effect(column.limit)}</p>{_known(column)}"
    )


def _known(column: ColumnReport) -> str:
    """Return the numbers that readers know from elsewhere."""
    numbers, parts = column.numbers, []
    if (psi := numbers.get("psi")) is not None:
        parts.append(f"PSI {psi:.3f}")
    if (moved := numbers.get("wasserstein")) is not None:
        parts.append(f"Wasserstein {short(moved)}")
    if "distinct_now" in numbers:
        more = "at least " if numbers["distinct_at_least"] else ""
        parts.append(f"{more}{numbers['distinct_before']:,} → {numbers['distinct_now']:,} distinct values")
    return f'<p class="aside">{" · ".join(parts)}</p>' if parts else ""


def _plottable(name: str, reference: DataProfile, current: DataProfile) -> bool:
    """Return whether both sides have a distribution to show."""
    sides = [side.columns[name] for side in (reference, current) if name in side.columns]
    return len(sides) == 2 and all(
        side.vectors.rows > 0 if side.vectors else (side.measures or side.categories is not None) and side.values > 0
        for side in sides
    )


def _picture(column: ColumnReport, reference: ColumnProfile, current: ColumnProfile, full: Counts) -> str:
    missing = _missing(reference, current)
    measure = str(column.numbers.get("measure", next(iter(reference.measures), "")))
    if measure in reference.measures and measure in current.measures:
        bars, ends, gap = number_bars(reference.measures[measure], current.measures[measure], full)
        words = _gap_words(bars, ends, gap)
        of = MEASURED[measure] if measure else "value"
        label = f"{column.name}: shares of rows in {len(bars)} ranges of its {of}. {words}"
        plot = number_plot(bars, ends, gap, label=label)
        shown = f'<p class="aside">Its {of}:</p>' if measure else ""
        return f"{shown}{plot}<p class=cut>{escape(words)}</p>{missing}{_numbers(bars)}"
    if reference.categories and current.categories:
        bars = category_bars(reference.categories, current.categories, full)
        moved = max(bars, key=lambda bar: abs(bar.reference.value - bar.current.value))
        words = (
            f"Largest change: {moved.label}, {percent(moved.reference.value)} of the reference, "
            f"{percent(moved.current.value)} of the current data."
        )
        plot = category_plot(bars, label=f"{column.name}: shares of rows per value. {words}")
        return f"{plot}{_fresh(reference.categories, current.categories)}{missing}{_numbers(bars)}"
    if reference.vectors and current.vectors:
        usual, now, chance = distances(reference.vectors, current.vectors, full)
        words = f"The mean features of both sides are {short(now)} apart; chance alone makes {short(chance)} (dotted)."
        if usual:
            blocks = counted(len(usual), "time block")
            words += f" Each of the reference's {blocks} is {short(min(usual))} to {short(max(usual))} from the others."
        plot = distance_plot(usual, now, chance, label=f"{column.name}: distance between mean features. {words}")
        return f'<p class="aside">Distance between mean features:</p>{plot}<p class=cut>{escape(words)}</p>{missing}'
    return missing


def _gap_words(bars: Sequence[Bar], ends: Sequence[float], gap: int) -> str:
    if not ends:
        return ""
    below = [sum(getattr(bar, side).value for bar in bars[: gap + 1]) for side in ("reference", "current")]
    if below[0] == below[1]:
        return "Nowhere apart: both hold the same share of rows below every value."
    return (
        f"Widest apart at {short(ends[gap])}: {percent(below[0])} of the reference lies at or below it, "
        f"{percent(below[1])} of the current data."
    )


def _missing(reference: ColumnProfile, current: ColumnProfile) -> str:
    shares = [side.missing / side.rows if side.rows else 0.0 for side in (reference, current)]
    if not any(shares):
        return ""
    return f'<p class="aside">Missing: {percent(shares[0])} → {percent(shares[1])}.</p>'


def _fresh(reference: CategoryCounts, current: CategoryCounts) -> str:
    if reference.tail_rows or current.tail_rows:
        return '<p class="aside">Too many values to say which are new.</p>'
    n, m = max(reference.rows, 1), max(current.rows, 1)
    new = {name: count / m for name, count in current.counts.items() if count and not reference.counts.get(name)}
    gone = {name: count / n for name, count in reference.counts.items() if count and not current.counts.get(name)}
    parts = []
    for word, found in (("New", new), ("Gone", gone)):
        if found:
            biggest = sorted(found.items(), key=lambda item: (-item[1], item[0]))
            named = ", ".join(f"<b>{escape(name[:60])}</b> {percent(share)}" for name, share in biggest[:NEW_SHOWN])
            more = f" and {len(found) - NEW_SHOWN:,} more" if len(found) > NEW_SHOWN else ""
            parts.append(
                f'<p class="aside">{word} values ({len(found):,}, {percent(sum(found.values()))} of rows): '
                f"{named}{more}.</p>"
            )
    return "".join(parts)


def _numbers(bars: Sequence[Bar]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(bar.label[:60])}<td>{percent(bar.reference.value)}"
        f"<td>{percent(bar.reference.low)} to {percent(bar.reference.high)}<td>{percent(bar.current.value)}"
        f"<td>{percent(bar.current.low)} to {percent(bar.current.high)}"
        for bar in bars
    )
    return (
        "<details><summary>Numbers behind the plot</summary><table class=numbers><thead><tr><th scope=col>Values"
        "<th scope=col>Reference<th scope=col>usual<th scope=col>Current<th scope=col>95%</thead>"
        f"<tbody>{rows}</tbody></table></details>"
    )


def _legend(report: DriftReport) -> str:
    usual = (
        "where 95% of quiet windows would lie, from the reference's own time blocks"
        if report.variation is Variation.KNOWN
        else "95% interval of the reference, rows taken as independent"
    )
    return (
        '<section class="legend"><h2>Reference against current</h2><ul>'
        '<li><svg viewBox="0 0 28 16" aria-hidden="true"><path class="r" d="M2 15V4H26V15Z"/></svg>'
        "reference, share of rows</li>"
        f'<li><svg viewBox="0 0 28 16" aria-hidden="true"><path class="u" d="M2 13V3H26V13Z"/></svg>{usual}</li>'
        '<li><svg viewBox="0 0 28 16" aria-hidden="true"><path class="c" d="M2 15V5H26V15"/>'
        '<path class="w" d="M14 1V10"/></svg>current, with 95% interval</li>'
        '<li><svg viewBox="0 0 28 16" aria-hidden="true"><path class="k" d="M14 0V16"/></svg>'
        "where the two are widest apart</li></ul></section>"
    )


def _left_out(report: DriftReport, reference: DataProfile, plotted: int) -> str:
    parts = []
    hidden = len(report.columns) - plotted
    if hidden > 0:
        parts.append(f"{counted(hidden, 'column')} without a plot.")
    if reference.timestamp or reference.excluded:
        names = [name for name in (reference.timestamp, *reference.excluded) if name]
        parts.append(f"Not judged: {', '.join(names[:20])}{'…' if len(names) > 20 else ''}.")
    parts.append(
        "Change is a share of rows, 0 to 1: the largest gap between two distributions, or the share that moved between "
        "categories. A column drifts when the change is beyond chance and natural variation, and at least as large as "
        "its limit."
    )
    return f"<footer>{''.join(f'<p>{escape(part)}</p>' for part in parts)}</footer>"


def _badge(verdict: Verdict) -> str:
    return _pill(verdict.value, *_WORDS[verdict])


def _column_badge(column: ColumnReport) -> str:
    return _pill(*_shown(column))


def _shown(column: ColumnReport) -> tuple[str, str, str]:
    """Return tone, mark and word of a column. One that does not count lacks nothing: it is not called insufficient."""
    if column.verdict is Verdict.INSUFFICIENT and not column.counts:
        return Verdict.NO_DATA.value, "◌", "Not counted"
    return column.verdict.value, *_WORDS[column.verdict]


def _pill(tone: str, mark: str, word: str) -> str:
    return f'<span class="badge {tone}"><span aria-hidden="true">{mark}</span> {word}</span>'


def _span(profile: DataProfile) -> str:
    if not profile.start or not profile.end:
        return "no event time"
    return f"{profile.start[:10]} to {profile.end[:10]}"


def _effect(value: float) -> str:
    return f"{value:.2f}" if value >= 0.095 or value == 0 else f"{value:.3f}"


def _p(value: float) -> str:
    if value >= 0.9995:
        return "1"
    if value >= 0.001:
        return f"{value:.3f}"
    if value < 1e-300:
        return "&lt; 10<sup>-300</sup>"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa} &times; 10<sup>{int(exponent)}</sup>"
