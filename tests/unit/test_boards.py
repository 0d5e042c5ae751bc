"""The boards' shared part, their results, and the page that shows them."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOARDS = ROOT / "benchmarks"
RESULTS = sorted((BOARDS / "results").glob("*.json"))
SHARED = {"common", "page"}


@pytest.fixture
def module(monkeypatch):
    """Import a file of benchmarks/ as its neighbors do, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(BOARDS))

    def load(name):
        specification = importlib.util.spec_from_file_location(name, BOARDS / f"{name}.py")
        found = importlib.util.module_from_spec(specification)
        monkeypatch.setitem(sys.modules, name, found)
        specification.loader.exec_module(found)
        return found

    return load


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([3, 1, 2], 0.5, 2), ([1], 0.95, 1), (range(1, 101), 0.95, 95), (range(1, 101), 1, 100), ([5, 6], 0.01, 5)],
)
def test_a_quantile_is_a_value_that_was_seen(module, values, share, expected):
    assert module("common").quantile(list(values), share) == expected


def test_a_table_is_aligned_and_empty_where_nothing_was_measured(module):
    text = module("common").aligned(
        [{"side": "ours", "seconds": 1.23456}, {"side": "b", "why": ["x", "y"]}], ["side", "seconds", "why"]
    )
    assert text.splitlines() == [
        "side  seconds  why",
        "----  -------  ----",
        "ours  1.235",
        "b              x, y",
    ]


def test_a_board_fails_when_a_goal_does(module, monkeypatch, tmp_path, capsys):
    common = module("common")
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    good, bad = common.goal("a", "<= 1", 1, True), common.goal("b", "<= 1", 2, False)
    assert common.write("x", [good], [{"row": 1}]) == 0
    assert common.write("x", [good, bad], []) == 1
    assert json.loads((tmp_path / "results" / "x.json").read_text())["goals"][1]["holds"] is False
    assert capsys.readouterr().out.splitlines() == ["holds  a: 1 (goal <= 1)", "FAILS  b: 2 (goal <= 1)"]


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_results_have_one_form_and_tell_nothing_of_the_machine_but_its_kind(file):
    text = file.read_text()
    result = json.loads(text)
    assert list(result) == ["board", "machine", "goals", "rows"]
    assert result["board"] == file.stem
    assert set(result["machine"]) == {"cpu", "cores", "memory_gib", "system", "python"}
    assert result["rows"]
    for goal in result["goals"]:
        assert set(goal) == {"name", "goal", "value", "holds"}
    assert re.findall(r'"/|/tmp/|/home/|/root/|/work/|\.local\b', text) == []


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_results_come_from_a_board_that_is_there(file):
    assert (BOARDS / f"{file.stem.removesuffix('-large').replace('-', '_')}.py").exists()


@pytest.mark.parametrize(
    "file", [file for file in sorted(BOARDS.glob("*.py")) if file.stem not in SHARED], ids=lambda file: file.stem
)
def test_every_board_says_how_it_is_run(file):
    text = ast.get_docstring(ast.parse(file.read_text()))
    assert f"python benchmarks/{file.name}" in text or f"make bench-{file.stem.replace('_', '-')}" in text


def test_the_page_shows_the_results_as_they_are(module):
    assert (ROOT / "docs" / "benchmarks.md").read_text() == module("page").page(), "run: make bench-page"


def test_mappings_become_columns_and_long_lists_stay_in_the_results(module):
    row = {"cell": "a", "alarms": {"ours": 0.0, "theirs": 1.0}, "long": list(range(100)), "short": [1, 2]}
    assert module("page").flat(row) == {"cell": "a", "ours": 0.0, "theirs": 1.0, "short": [1, 2]}
