"""The drift report: all of it in one file, safe against what names and values say, and readable without color."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_mlops.drift.check import ColumnReport, DriftPolicy, DriftReport, Variation, Verdict, check
from airflow_provider_mlops.drift.layout import choose_layout, without_identifiers
from airflow_provider_mlops.drift.plots import category_bars, number_bars, percent, short
from airflow_provider_mlops.drift.profile import ProfileBuilder
from airflow_provider_mlops.drift.report import html, lines, ranked
from airflow_provider_mlops.drift.selection import select_columns
from airflow_provider_mlops.errors import ConfigError

NASTY = "<script>alert('x')</script> & \"more\""


def rows(count, *, moved=False, nasty=False, columns=(), seed=0):
    random = np.random.default_rng(seed)
    shift = 0.8 if moved else 0.0
    names = ["red", "green", "blue"] + ([NASTY if nasty else "violet"] if moved else [])
    shares = [0.2, 0.2, 0.3, 0.3] if moved else [0.5, 0.3, 0.2]
    values = {
        "at": [datetime(2026, 1, 1) + timedelta(minutes=15 * i) for i in range(count)],
        "amount": random.lognormal(2 + shift, 1, count),
        "visits": random.poisson(2 + shift, count),
        "color": random.choice(names, count, p=shares),
        "steady": random.normal(size=count),
    }
    if nasty:
        values[NASTY] = random.normal(size=count)
    values |= {name: random.normal(size=count) for name in columns}
    return pa.RecordBatch.from_pydict(values)


def profiles(reference, current, block=timedelta(days=7)):
    layout = choose_layout(reference, timestamp="at", block=block, origin=datetime(2026, 1, 1))
    sides = []
    for batch in (reference, current):
        builder = ProfileBuilder(layout)
        builder.add(batch)
        sides.append(builder.profile())
    return without_identifiers(sides[0]), sides[1]


@pytest.fixture(scope="module")
def drifted():
    reference, current = profiles(rows(20_000), rows(8000, moved=True, seed=1))
    return check(reference, current, DriftPolicy()), reference, current


class Page(HTMLParser):
    """Collects what a test wants to know of a page, and fails on tags that do not match."""

    VOID = frozenset({"meta"})
    OPTIONAL = frozenset({"th", "td", "tr"})

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        while self.stack and self.stack[-1] != tag and self.stack[-1] in self.OPTIONAL:
            self.stack.pop()
        assert self.stack.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.text.append(data)


def test_the_verdict_sentence_stands_on_top(drifted):
    report, *sides = drifted
    page = html(report, *sides, title="rain, version 3")
    heading = page.index("<h1>")
    assert heading < page.index("<table")
    assert report.sentence.replace("'", "&#x27;") in page[heading : page.index("</h1>")]
    assert "<title>rain, version 3: drift</title>" in page


def test_the_page_needs_no_network_and_no_script(drifted):
    page = html(drifted[0], *drifted[1:], title="rain")
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert not {"link", "img", "iframe", "object"} & set(parsed.tags)
    links = [value for _, name, value in parsed.attributes if name in {"href", "src"}]
    assert links
    assert all(link.startswith("#") for link in links)
    assert re.findall(r"url\((?!#)", page) == []
    assert "http" not in page


def test_every_link_leads_somewhere(drifted):
    parsed = Page(html(drifted[0], *drifted[1:], title="rain"))
    anchors = {value for _, name, value in parsed.attributes if name == "id"}
    assert {value[1:] for _, name, value in parsed.attributes if name == "href"} <= anchors


def test_names_and_values_are_text_and_never_markup():
    reference, current = profiles(rows(8000, nasty=True), rows(2000, moved=True, nasty=True, seed=1))
    report = check(reference, current, DriftPolicy())
    history = [{"verdict": "drift", "sentence": NASTY, "window": NASTY}]
    page = html(report, reference, current, title=NASTY, history=history)
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert "<script" not in page
    assert any(NASTY in text for text in parsed.text)
    assert any(name == "aria-label" and NASTY in value for _, name, value in parsed.attributes)


def test_every_plot_has_words_for_those_who_cannot_see_it(drifted):
    parsed = Page(html(drifted[0], *drifted[1:], title="rain"))
    labels = [value for tag, name, value in parsed.attributes if tag == "svg" and name == "aria-label"]
    assert len(labels) == 4
    assert all("of the reference" in label and "of the current data" in label for label in labels)
    plots = [value for tag, name, value in parsed.attributes if tag == "svg" and name == "role"]
    assert plots == ["img"] * 4
    assert parsed.tags.count("table") == 5  # the ranking, and the numbers behind each plot


def test_verdicts_are_told_by_word_and_shape_not_by_color_alone(drifted):
    text = "".join(Page(html(drifted[0], *drifted[1:], title="rain")).text)
    assert "▲ Drift" in text
    assert "● No drift" in text


def test_a_column_that_does_not_count_is_not_called_insufficient():
    def with_a_second_time(batch):
        return batch.append_column("seen", batch.column("at"))

    reference, current = profiles(*map(with_a_second_time, (rows(20_000), rows(8000, moved=True, seed=1))))
    report = check(reference, current, DriftPolicy())
    assert (report.columns["seen"].reason, report.columns["seen"].counts) == ("time_column", False)
    text = "".join(Page(html(report, reference, current, title="rain")).text)
    assert "◌ Not counted" in text
    assert "Insufficient" not in text
    assert "3 of 4 columns drifted" in text
    assert "3 stand out" in text
    assert "95 %" not in text
    (line,) = [line for line in lines(report) if line.startswith("seen ")]
    assert "not counted" in line


def test_one_column_is_one_column():
    reference, current = profiles(*(rows(4000, moved=m, seed=m).select(["at", "amount"]) for m in (False, True)))
    report = check(reference, current, DriftPolicy())
    assert report.sentence.startswith("1 of 1 column drifted.")
    assert "1 stands out" in "".join(Page(html(report, reference, current, title="rain")).text)


def test_light_and_dark_are_both_defined(drifted):
    page = html(drifted[0], *drifted[1:], title="rain")
    assert "@media (prefers-color-scheme:dark)" in page
    assert 'name="color-scheme" content="light dark"' in page


def test_new_values_are_named_with_their_share(drifted):
    text = "".join(Page(html(drifted[0], *drifted[1:], title="rain")).text)
    assert re.search(r"New values \(1, 3\d% of rows\): violet \d\d%", text)


def test_a_hundred_times_more_values_are_counted_but_not_all_named():
    reference, current = profiles(rows(4000), rows(4000, seed=1))
    column = current.columns["color"]
    many = {f"new {i}": 1 for i in range(100)}
    crowded = replace(column, categories=replace(column.categories, counts={**column.categories.counts, **many}))
    current = replace(current, columns={**current.columns, "color": crowded})
    text = "".join(Page(html(check(reference, current), reference, current, title="x")).text)
    assert "New values (100, " in text
    assert "and 88 more" in text


def test_numbers_known_from_elsewhere_stand_beside_the_plot(drifted):
    text = html(*drifted, title="churn")
    assert re.search(r"PSI \d\.\d{3} · Wasserstein [\d.]+<", text)
    assert re.search(r"PSI \d\.\d{3} · \d → \d distinct values<", text)


def test_what_is_significant_but_too_small_has_its_own_list():
    reference, current = profiles(rows(8000), rows(2000, seed=1))
    report = check(reference, current, DriftPolicy())
    small = replace(report.columns["steady"], reason="too_small", sentence="'steady' moved, but only by 0.02.")
    report = replace(report, columns={**report.columns, "steady": small})
    page = html(report, reference, current, title="rain")
    section = page[page.index("Significant, but too small to matter") :]
    assert "but only by 0.02" in section[: section.index("</section>")]


def test_a_missing_column_is_a_violation_and_needs_no_plot():
    reference, current = profiles(rows(8000), rows(2000, seed=1).drop_columns(["visits"]))
    report = check(reference, current, DriftPolicy())
    assert report.verdict is Verdict.BAD_DATA
    page = html(report, reference, current, title="rain")
    section = page[page.index("Contract violations") :]
    assert "visits" in section[: section.index("</section>")]
    assert "cannot start a training" in section


def test_an_empty_window_is_shown_too():
    reference, current = profiles(rows(8000), rows(0))
    report = check(reference, current, DriftPolicy())
    page = html(report, reference, current, title="rain")
    assert "No data" in page
    assert "no event time" in page
    Page(page)


def test_the_history_is_a_strip_of_verdicts_with_words(drifted):
    history = [
        {"verdict": "no_drift", "sentence": "Nothing moved.", "numbers": {"window_end": "2026-01-31T00:00:00+00:00"}},
        {"verdict": "drift", "sentence": "It moved.", "window": "sha256:1"},
    ]
    parsed = Page(html(drifted[0], *drifted[1:], title="rain", history=history))
    text = " ".join(parsed.text)
    assert "2026-01-31: no drift. Nothing moved." in text
    assert "1 drift, 1 no drift" in " ".join(text.split())
    assert parsed.tags.count("ol") == 1
    assert "ol" not in Page(html(drifted[0], *drifted[1:], title="rain")).tags


def test_a_report_without_natural_variation_says_so():
    reference, current = profiles(rows(8000), rows(2000, moved=True, seed=1), block=None)
    report = check(reference, current, DriftPolicy())
    assert report.variation is Variation.UNKNOWN
    page = html(report, reference, current, title="rain")
    assert "never starts a retraining" in page
    assert "rows taken as independent" in page


def test_fifty_columns_stay_under_one_megabyte():
    names = [f"column_{i}" for i in range(46)]
    reference, current = profiles(rows(8000, columns=names), rows(2000, moved=True, columns=names, seed=1))
    assert len(reference.columns) == 50
    page = html(check(reference, current, DriftPolicy()), reference, current, title="rain")
    assert len(page.encode()) < 1_000_000
    assert page.count('role="img"') == 50


def test_a_thousand_columns_keep_the_page_small():
    reference, current = profiles(rows(4000), rows(1000, seed=1))
    steady = ColumnReport("x", Verdict.NO_DRIFT, "steady", "It did not move.", 0.01, 0.0, 0.03, 0.05, 0.5, 1.0)
    report = check(reference, current, DriftPolicy())
    many = {f"c{i}": replace(steady, name=f"c{i}") for i in range(1000)}
    page = html(replace(report, columns=many), reference, current, title="rain")
    assert len(page.encode()) < 1_000_000
    assert "600 further columns in the JSON report" in page


def test_columns_are_ranked_by_what_decided_then_by_verdict_then_by_size(drifted):
    report = drifted[0]
    order = [column.name for column in ranked(report)]
    assert order[: len(report.top_columns)] == list(report.top_columns)
    assert order[-1] == "steady"


def test_the_text_table_is_aligned_and_bounded(drifted):
    table = lines(drifted[0])
    start = table[0].index("verdict")
    assert all(line[start - 1] == " " and line[start] != " " for line in table)
    report = drifted[0]
    many = {f"c{i}": replace(report.columns["steady"], name=f"c{i}") for i in range(100)}
    table = lines(replace(report, columns=many, top_columns=()), limit=20)
    assert len(table) == 21
    assert table[-1] == "and 81 further columns"


def test_bars_are_exact_and_cut_where_the_distributions_are_widest_apart(drifted):
    report, reference, current = drifted
    sides = (reference.columns["amount"].numbers, current.columns["amount"].numbers)
    bars, ends, gap = number_bars(*sides, reference.full_blocks())
    assert 10 <= len(bars) <= 40
    assert len(ends) == len(bars) - 1
    assert sum(bar.reference.value for bar in bars) == pytest.approx(1)
    assert sum(bar.current.value for bar in bars) == pytest.approx(1)
    apart = sum(bar.reference.value - bar.current.value for bar in bars[: gap + 1])
    assert abs(apart) == pytest.approx(report.columns["amount"].effect)
    for bar in bars:
        assert bar.reference.low <= bar.reference.value <= bar.reference.high
        assert bar.current.low <= bar.current.value <= bar.current.high


def test_categories_that_are_not_shown_are_summed_up():
    reference, _ = profiles(rows(4000), rows(4000, seed=1))
    side = reference.columns["color"].categories
    counts = {f"v{i}": i for i in range(1, 41)}
    bars = category_bars(replace(side, counts=counts), replace(side, counts=counts), reference.full_blocks())
    assert bars[0].label == "v40"
    assert bars[-1].label == "all other values (30)"
    assert sum(bar.reference.value for bar in bars) == pytest.approx(1)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (0.00004, "< 0.01%"), (0.0123, "1.2%"), (0.256, "26%"), (0.9996, "99.96%"), (1, "100%")],
)
def test_shares_are_written_as_per_cent(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"), [(7.0, "7"), (0.03695, "0.0369"), (1013.25, "1013"), (1234567.0, "1.23e+06"), (-0.5, "-0.5")]
)
def test_numbers_are_written_short(value, text):
    assert short(value) == text


def test_selected_columns_are_judged_and_the_others_are_known(drifted):
    reference = drifted[1]
    chosen = select_columns(reference, columns=["amount", "color"], exclude=["color", "unheard of"])
    assert list(chosen.columns) == ["amount"]
    assert set(chosen.excluded) == {"visits", "color", "steady", "unheard of"}
    assert select_columns(reference).columns == dict(reference.columns)


def test_an_unknown_column_is_named_with_its_neighbors(drifted):
    with pytest.raises(ConfigError, match=r"'amuont' is not in the reference profile\. Did you mean 'amount'"):
        select_columns(drifted[1], columns=["amuont"])


def test_excluding_everything_is_refused(drifted):
    with pytest.raises(ConfigError, match="No column is left"):
        select_columns(drifted[1], exclude=list(drifted[1].columns))


def test_a_report_is_a_pure_function_of_its_input(drifted):
    assert html(drifted[0], *drifted[1:], title="x") == html(drifted[0], *drifted[1:], title="x")
    assert isinstance(drifted[0], DriftReport)
