"""The model card: what it says of what is known, what it says of what is not, and that nothing in it is obeyed."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.evaluation import GatePolicy, Importance, Predictions, Rule, decide
from airflow_provider_mlops.evaluation.card import CardFacts, card
from airflow_provider_mlops.evaluation.importance import Drop, SliceDrops
from airflow_provider_mlops.evaluation.page import plain

HOSTILE = '<script>alert("1")</script>'
RULES = [
    Rule("roc_auc", at_least=0.6),
    Rule("log_loss", max_drop_vs_champion=0.02),
    Rule("accuracy", per="country", min_rows=200),
    Rule("equal_opportunity_difference", per="country", at_most=0.3),
    Rule("importance_share", column="wind", at_most=0.5),
]


def measured(first="humidity"):
    columns = {first: Drop(0.06, 0.05, 0.07), "wind": Drop(0.02, 0.01, 0.03), "noise": Drop(-0.01, -0.02, 0.01)}
    slices = {"country": {"north": SliceDrops(900, {first: 0.01, "wind": 0.03, "noise": 0.0})}}
    return Importance("brier", 0.2, 4000, 1, columns, slices, ("day",))


def decision(rules=RULES, champion=True, noise=0.3, country="south", importance=None):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 4000)
    signal = 1.5 * label - 0.75 + rng.normal(size=4000)
    one, other = (1 / (1 + np.exp(-signal - size * rng.normal(size=4000))) for size in (noise, 0.6))
    slices = {"country": rng.choice(np.array(["north", country, "few"], dtype=object), 4000, p=[0.5, 0.48, 0.02])}
    predictions = Predictions(label, one, other if champion else None, slices)
    found = decide(
        rules, predictions, task="binary", policy=GatePolicy(bootstrap_draws=200), importance=importance or measured()
    )
    return json.loads(json.dumps(found.to_dict(), allow_nan=False))


def facts(**changes):
    known = {
        "model": "rain_forecast",
        "version": "3",
        "gate": decision(),
        "judged": {
            "task": "binary",
            "label": "rain",
            "timestamp": "day",
            "entity": None,
            "data_uri": "s3://lake/evaluate",
            "train_uri": "s3://lake/train",
            "champion": "2",
            "inputs": {"humidity": "double", "wind": "double", "noise": "double"},
        },
        "importance": measured(),
        "training_rows": 3650,
        "training_span": ("2003-12-30T00:00:00+00:00", "2013-12-27T00:00:00+00:00"),
        "watched": ("humidity", "wind"),
        "lineage": {"MLflow run": "4b1f", "Git commit": "c0ffee"},
        "hyperparameters": {"depth": 6},
        "python": "3.12.1",
        "requirements": ("mlflow==3.17.2", "pandas"),
    }
    return CardFacts(**{**known, **changes})


class Checked(HTMLParser):
    """Collects the text of a page; fails on tags that are not closed in order, and on anything that runs or loads."""

    VOID = frozenset({"meta", "path"})

    def __init__(self, page):
        super().__init__()
        self.open, self.text = [], ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag not in {"script", "iframe", "img", "link", "object", "form", "a", "b1"}
        assert not any(name.startswith("on") or name in {"href", "src"} for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] != "style":
            self.text += data


SAID = [
    "A binary classifier of rain, trained on 3,650 rows (2003-12-30 to 2013-12-27).",
    "The gate passed it on 4,000 rows: roc_auc 0.8",
    "over the champion (version 2)",
    "Driven most by humidity (75%), wind (25%).",
    "s3://lake/evaluate",
    "at least 0.6",
    "no loss of 0.02",
    "accuracy: none of 2 slices of country is shown worse than under the champion.",
    "equal_opportunity_difference is 0.0",
    "How much the Brier score (0.2) grows when a column is shuffled between 4,000 evaluation rows",
    "wind 75%, humidity 25%",
    "accuracy by country: country=few: ",
    "Not watched for drift: noise.",
    "The environment is not fixed: pandas may be of any release.",
    "c0ffee",
    "Environment: Python 3.12.1",
]


@pytest.mark.parametrize("text", SAID)
def test_the_card_says_what_is_known(text):
    written = card(facts())
    assert text in Checked(written.html).text.replace("Python 3.12.1Env", "")
    assert text in written.markdown


def test_the_first_paragraph_is_the_summary():
    written = card(facts())
    assert written.markdown.split("\n\n")[1] == f"**Passed.** {written.summary}"


UNKNOWN = [
    ({"gate": None}, "No gate has judged this version."),
    ({"importance": None}, "What drives the model was not measured."),
    ({"watched": None}, "There is no profile of the training data"),
    ({"requirements": ()}, "The model names no requirements: its environment cannot be made again."),
    ({"lineage": {}}, "No Git commit is known"),
    ({"gate": decision(champion=False)}, "First model: it was held to absolute limits only"),
    ({"gate": decision([Rule("roc_auc", at_least=0.6)])}, "No rule looks at slices"),
    (
        {"gate": decision([Rule("roc_auc", at_least=0.6, unsafe_ignore_champion=True)])},
        "The comparison with the champion was switched off",
    ),
    ({"gate": decision([Rule("accuracy")], noise=0.61)}, "Too few evaluation rows: accuracy: gain over the champion"),
]


@pytest.mark.parametrize(("changes", "text"), UNKNOWN)
def test_the_card_says_what_is_not_known(changes, text):
    written = card(facts(**changes))
    limits = written.markdown.partition("## Limits")[2].partition("##")[0]
    assert text in limits
    assert text in Checked(written.html).text


def test_shap_values_are_on_the_card_where_they_were_measured():
    assert "SHAP" not in card(facts()).markdown
    shown = card(facts(importance=replace(measured(), shap={"wind": 0.25, "humidity": 0.5}))).markdown
    assert shown.index("| humidity | 0.5") < shown.index("| wind | 0.25")


def test_rows_that_judged_many_candidates_are_a_limit():
    assert "now judged" not in card(facts()).markdown
    many = card(facts(judged={**facts().judged, "judged_before": 22})).markdown
    assert "These evaluation rows have now judged 23 candidates." in many


def test_a_card_of_nothing_still_names_its_version():
    written = card(CardFacts("m", "1"))
    assert written.markdown.startswith("# m, version 1\n\n**Not judged.** A model.\n\n## Limits\n")
    assert "m, version 1" in Checked(written.html).text


def test_what_a_guard_found_is_on_the_card():
    found = {**decision(), "verdict": "refused", "rules": []}
    found["findings"] = [{"reason": "leakage", "sentence": "The column 'x' alone predicts the label.", "numbers": {}}]
    written = card(facts(gate=found))
    assert "leakage: The column 'x' alone predicts the label." in written.markdown
    assert "The gate refused it on 4,000 rows." in written.summary


@pytest.mark.parametrize(
    "name", [HOSTILE, "a|b", "[x](javascript:alert(1))", "![x](http://evil/y.png)", "`rm`", "a\nb", "&lt;"]
)
def test_hostile_names_stay_text(name):
    written = card(
        facts(
            model=name,
            gate=decision(country=name),
            importance=measured(name),
            judged={**facts().judged, "label": name, "inputs": {name: "double"}},
            requirements=(name,),
            hyperparameters={name: name},
            lineage={"DAG run": name},
        )
    )
    shown = Checked(written.html)
    assert name in shown.text
    assert "<script" not in written.markdown
    assert "](" not in re.sub(r"\\.", "", written.markdown)
    rows = [line for line in written.markdown.split("\n") if line.startswith("|")]
    assert all(re.fullmatch(r"\|( ([^|\\]|\\.)* \|| {2}\|)+", row) for row in rows), rows


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_text_for_markdown_is_one_line_without_tags(text):
    shown = plain(text)
    assert not re.search(r"[\n\r<>]", shown)
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*]", shown)


def test_long_lists_are_cut():
    columns = {f"c{i:02}": Drop(0.01, 0.0, 0.02) for i in range(40)}
    written = card(facts(importance=Importance("squared_error", 1.0, 100, 1, columns)))
    assert "25 more columns hold 62.5% together." in written.markdown
    assert written.html.count('class="bar"') == 15
