"""The model card of a version: what it was made of, how it was judged, what drives it, where its limits are. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.evaluation import page
from airflow_provider_mlops.evaluation.fairness import GAPS
from airflow_provider_mlops.evaluation.page import Bar, Bars, Block, Facts, Items, Section, Table, Text
from airflow_provider_mlops.evaluation.reuse import warning
from airflow_provider_mlops.evaluation.values import GatePolicy, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_mlops.evaluation.importance import Importance

__all__ = ["Card", "CardFacts", "card"]

_MOST_SLICES = 30  # rows of a table
_MOST_BARS = 15
_NAMED = 3  # columns in a sentence
_NOTHING = "n/a"
_TASKS = {
    "binary": "binary classifier",
    "multiclass": "classifier",
    "regression": "regression",
    "forecasting": "forecast",
    "ranking": "ranking",
}
_LOSSES = {
    "brier": "Brier score",
    "squared_error": "squared error",
    "wrong_labels": "share of wrong labels",
    "rank_error": "squared error of the ranks",
}
_SAYS = {"passed": "passed it", "refused": "refused it", "underpowered": "could not tell"}
_BADGES = {"passed": ("good", "Passed"), "refused": ("bad", "Refused"), "underpowered": ("open", "Underpowered")}
_PINNED = re.compile(r"==|@|^\s*$|^\s*[#-]")


@dataclass(frozen=True, slots=True)
class CardFacts:
    """
    What a card is written from; what is not known is left out of the card, and said under its limits.

    :param model: name of the registered model.
    :param version: the version.
    :param gate: a `GateDecision` as its ``to_dict`` gives it.
    :param judged: ``task``, ``label``, ``timestamp``, ``entity``, ``data_uri``, ``train_uri``, ``champion`` (the
        version that was compared with), ``inputs`` (type per input column) and ``judged_before`` (other candidates of
        the same rows).
    :param importance: how much each input matters.
    :param training_rows: rows that were trained on.
    :param training_span: event time of the first and of the last of them, ISO 8601.
    :param watched: columns whose distribution the reference profile holds, for drift checks.
    :param lineage: what identifies the version's origin, by its name in the card.
    :param hyperparameters: name and value of each.
    :param python: version of Python that the model was made with.
    :param requirements: lines of the model's requirements.
    """

    model: str
    version: str
    gate: Mapping[str, Any] | None = None
    judged: Mapping[str, Any] = field(default_factory=dict)
    importance: Importance | None = None
    training_rows: int | None = None
    training_span: tuple[str | None, str | None] = (None, None)
    watched: tuple[str, ...] | None = None
    lineage: Mapping[str, str] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    python: str | None = None
    requirements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """
    A model card.

    :param summary: its first paragraph, as Markdown: the description of a registered version.
    :param markdown: all of it as Markdown.
    :param html: all of it as one HTML file, for a bright and a dark screen, wide or narrow, without script or network.
    """

    summary: str
    markdown: str
    html: str


def card(facts: CardFacts) -> Card:
    """Return the model card that *facts* give."""
    title = f"{facts.model}, version {facts.version}"
    tone, badge = _BADGES[facts.gate["verdict"]] if facts.gate else ("open", "Not judged")
    summary = _summary(facts)
    sections = [
        Section(name, tuple(blocks))
        for name, blocks in (
            ("Data", _data(facts)),
            ("Metrics", list(_metrics(facts))),
            ("Slices", list(_slices(facts))),
            ("Fairness", list(_fairness(facts))),
            ("What drives it", list(_drivers(facts.importance))),
            ("Limits", [Items(tuple(_limits(facts)))]),
            ("Lineage", list(_lineage(facts))),
        )
        if blocks
    ]
    return Card(
        summary=page.plain(summary),
        markdown=page.markdown(title, badge, summary, sections),
        html=page.html(title, tone, badge, summary, sections),
    )


# -- the parts --------------------------------------------------------------------------------------------------------


def _summary(facts: CardFacts) -> str:
    kind = _TASKS.get(str(facts.judged.get("task")), "model")
    label = f" of {facts.judged['label']}" if facts.judged.get("label") else ""
    rows = f", trained on {facts.training_rows:,} rows{_span(facts.training_span)}" if facts.training_rows else ""
    sentences = [f"{'An' if kind[0] in 'aeiou' else 'A'} {kind}{label}{rows}."]
    if facts.gate:
        judged = [
            rule for rule in _rules(facts) if _number(rule["numbers"].get("value")) and not rule["rule"].get("per")
        ]
        first = f": {_measured(judged[0], facts)}" if judged else ""
        sentences.append(f"The gate {_SAYS[facts.gate['verdict']]} on {facts.gate['rows']:,} rows{first}.")
    if facts.importance is not None:
        top = [f"{name} ({share:.0%})" for name, share in _ordered(facts.importance.shares)[:_NAMED] if share > 0]
        sentences.append(f"Driven most by {', '.join(top)}." if top else "No input moves its predictions.")
    return " ".join(sentences)


def _measured(rule: Mapping[str, Any], facts: CardFacts) -> str:
    numbers = rule["numbers"]
    said = f"{rule['rule']['metric']} {_interval(numbers, 'value', 'low', 'high')}"
    if _number(numbers.get("gain")):
        said += f", a gain of {_interval(numbers, 'gain', 'gain_low', 'gain_high')} over the {_champion(facts)}"
    return said


def _data(facts: CardFacts) -> list[Block]:
    judged, gate = facts.judged, facts.gate
    rows = [
        ("Label", judged.get("label")),
        ("Event time", judged.get("timestamp")),
        ("Query" if judged.get("task") == "ranking" else "Entity", judged.get("entity")),
        (
            "Trained on",
            f"{facts.training_rows:,} rows{_span(facts.training_span)}" if facts.training_rows is not None else None,
        ),
        ("Training data", judged.get("train_uri")),
        ("Judged on", f"{gate['rows']:,} rows that were not trained on" if gate else None),
        ("Evaluation data", judged.get("data_uri")),
        ("Inputs", ", ".join(f"{name} ({kind})" for name, kind in (judged.get("inputs") or {}).items())),
    ]
    known = tuple((name, str(value)) for name, value in rows if value)
    return [Facts(known)] if known else []


def _metrics(facts: CardFacts) -> Iterator[Block]:
    rules = [rule for rule in _rules(facts) if not rule["rule"].get("per") and not rule["rule"].get("column")]
    if facts.gate:
        yield Text(facts.gate["sentence"])
    for found in (facts.gate or {}).get("findings", ()):
        yield Text(f"{found['reason']}: {found['sentence']}")
    if not rules:
        return
    compared = any(_number(rule["numbers"].get("gain")) for rule in rules)
    head = ["Metric", "Candidate", *([_champion(facts).capitalize(), "Gain"] if compared else []), "Asked", "Result"]
    rows = []
    for rule in rules:
        numbers = rule["numbers"]
        cells = [rule["rule"]["metric"], _interval(numbers, "value", "low", "high")]
        if compared:
            cells += [_figure(numbers.get("champion")), _interval(numbers, "gain", "gain_low", "gain_high")]
        rows.append((*cells, _asked(rule["rule"]), _result(rule)))
    yield Table(tuple(head), tuple(rows), frozenset({1, 2, 3} if compared else {1}))
    words = "In brackets: one-sided bounds, each at 95 % unless the gate was told otherwise."
    yield Text(f"{words} A gain is positive when the candidate is better." if compared else words)


def _slices(facts: CardFacts) -> Iterator[Block]:
    for rule in _rules(facts):
        slices = rule["numbers"].get("slices")
        if not slices:
            continue
        by, metric = rule["rule"]["per"], rule["rule"]["metric"]
        compared = any(_number(part.get("gain")) for part in slices.values())
        yield Text(rule["sentence"])
        rows = []
        for name, part in list(slices.items())[:_MOST_SLICES]:
            cells = [name, f"{part['rows']:,}", _interval(part, "value", "low", "high")]
            worse = " worse" if name in rule["numbers"].get("shown_worse", ()) else ""
            rows.append((*cells, *([_interval(part, "gain", "gain_low", "gain_high") + worse] if compared else [])))
        head = (by, "Rows", metric, *(["Gain"] if compared else []))
        yield Table(head, tuple(rows), frozenset({1, 2, 3}))
        if len(slices) > _MOST_SLICES:
            yield Text(f"And {len(slices) - _MOST_SLICES} more.")


def _fairness(facts: CardFacts) -> Iterator[Block]:
    for rule in _rules(facts):
        numbers = rule["numbers"]
        if rule["rule"]["metric"] not in GAPS:
            continue
        yield Text(rule["sentence"])
        if numbers.get("rates"):
            rows = tuple((str(name), _figure(rate)) for name, rate in numbers["rates"].items())
            yield Table((rule["rule"]["per"], "Rate"), rows[:_MOST_SLICES], frozenset({1}))


def _drivers(importance: Importance | None) -> Iterator[Block]:
    if importance is None:
        return
    shares = importance.shares
    shown = sorted(importance.columns, key=lambda name: (-importance.columns[name].drop, name))
    yield Text(
        f"How much the {_LOSSES.get(importance.loss, importance.loss)} ({_figure(importance.base)}) grows when a "
        f"column is shuffled between {importance.rows:,} evaluation rows, with its 95 % interval."
    )
    bars = []
    for name in shown[:_MOST_BARS]:
        found = importance.columns[name]
        words = (f"{shares[name]:.1%}", f"{_figure(found.drop)} [{_figure(found.low)}, {_figure(found.high)}]")
        bars.append(Bar(name, found.drop, found.low, found.high, words))
    yield Bars(("Column", "Share", "Growth of the loss"), tuple(bars))
    if len(shown) > _MOST_BARS:
        rest = sum(shares[name] for name in shown[_MOST_BARS:])
        yield Text(f"{len(shown) - _MOST_BARS} more columns hold {rest:.1%} together.")
    if importance.shap:
        yield Text("Mean absolute SHAP value: how far a column moves a prediction, in the prediction's unit.")
        largest = tuple((name, _figure(value)) for name, value in _ordered(importance.shap)[:_MOST_BARS])
        yield Table(("Column", "SHAP"), largest, frozenset({1}))
    for by, parts in importance.slices.items():
        rows = []
        for value, part in parts.items():
            top = [f"{name} {share:.0%}" for name, share in _ordered(part.shares)[:_NAMED] if share > 0]
            rows.append((value, f"{part.rows:,}", ", ".join(top) or "none"))
        if rows:
            yield Table((by, "Rows", "Driven most by"), tuple(rows), frozenset({1}))


def _limits(facts: CardFacts) -> Iterator[str]:
    yield from _limits_of_the_judgment(facts)
    importance = facts.importance
    if importance is None:
        yield "What drives the model was not measured."
    else:
        yield (
            "A column that others can stand in for looks less important than it is: shuffling one of two similar "
            "columns costs little."
        )
    if facts.watched is None:
        yield "There is no profile of the training data, so later data cannot be checked for drift."
    else:
        blind = [name for name in facts.judged.get("inputs") or {} if name not in facts.watched]
        if blind:
            yield f"Not watched for drift: {_listed(blind)}."
    loose = [line for line in facts.requirements if not _PINNED.search(line)]
    if not facts.requirements:
        yield "The model names no requirements: its environment cannot be made again."
    elif loose:
        yield f"The environment is not fixed: {_listed([line.strip() for line in loose])} may be of any release."
    if "Git commit" not in facts.lineage:
        yield "No Git commit is known: the code is identified by its digest only."


def _limits_of_the_judgment(facts: CardFacts) -> Iterator[str]:
    gate = facts.gate
    if gate is None:
        yield "No gate has judged this version."
        return
    if gate["bootstrap"]:
        yield "First model: it was held to absolute limits only, and compared with nothing."
    if gate["champion_ignored"]:
        yield "The comparison with the champion was switched off (unsafe_ignore_champion)."
    reused = warning(facts.judged.get("judged_before") or 0, alpha=GatePolicy().alpha)
    if reused:
        yield reused
    for rule in _rules(facts):
        name = rule["rule"]["metric"]
        if rule["reason"] == Reason.UNDERPOWERED:
            yield f"Too few evaluation rows: {rule['sentence']}"
        notes = rule["numbers"].get("notes") or []
        if notes:
            yield f"{name} by {rule['rule'].get('per')}: {_listed(notes)}."
    if not any(rule["rule"].get("per") for rule in _rules(facts)):
        yield "No rule looks at slices: the model may be worse for some of the rows."
    yield "It was judged on rows like those of the evaluation set; other data may give other numbers."


def _lineage(facts: CardFacts) -> Iterator[Block]:
    if facts.lineage:
        yield Facts(tuple(facts.lineage.items()), code=True)
    if facts.hyperparameters:
        yield Text("Hyperparameters")
        yield Facts(tuple((name, str(value)) for name, value in sorted(facts.hyperparameters.items())), code=True)
    if facts.requirements:
        yield Text(f"Environment{f': Python {facts.python}' if facts.python else ''}")
        yield Items(tuple(line for line in facts.requirements if line.strip()))


# -- words ------------------------------------------------------------------------------------------------------------


def _rules(facts: CardFacts) -> list[Mapping[str, Any]]:
    return list((facts.gate or {}).get("rules", ()))


def _champion(facts: CardFacts) -> str:
    version = facts.judged.get("champion")
    return f"champion (version {version})" if version else "champion"


def _asked(rule: Mapping[str, Any]) -> str:
    words = {
        "at_least": "at least {}",
        "at_most": "at most {}",
        "max_drop_vs_champion": "no loss of {}",
        "min_gain_vs_champion": "a gain above {}",
    }
    parts = [text.format(f"{rule[key]:g}") for key, text in words.items() if rule.get(key) is not None]
    return ", ".join(parts) or "to be better"


def _result(rule: Mapping[str, Any]) -> str:
    why = "" if rule["reason"] == Reason.HOLDS else f" ({rule['reason'].replace('_', ' ')})"
    return f"{rule['verdict']}{why}"


def _interval(numbers: Mapping[str, Any], value: str, low: str, high: str) -> str:
    bounds = [numbers.get(low), numbers.get(high)]
    if not _number(numbers.get(value)):
        return _NOTHING
    if not all(map(_number, bounds)):
        return _figure(numbers[value])
    return f"{_figure(numbers[value])} [{_figure(bounds[0])}, {_figure(bounds[1])}]"


def _figure(value: object) -> str:
    """
    Return a number as a reader wants it.

    >>> _figure(0.12345), _figure(-0.00001), _figure(123.45), _figure(-23456.7)
    ('0.1235', '0', '123.5', '-23,457')
    """
    if not _number(value):
        return _NOTHING
    number = float(str(value))
    if 1000 <= abs(number) < 1e12:
        return f"{number:,.0f}"
    return f"{number:.4g}" if abs(number) >= 100 else f"{number:z.4f}".rstrip("0").rstrip(".")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _span(span: tuple[str | None, str | None]) -> str:
    start, end = span
    return f" ({start[:10]} to {end[:10]})" if start and end else ""


def _ordered(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda item: (-item[1], item[0]))


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
