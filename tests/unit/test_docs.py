"""The documentation says what the code says: links, codes, settings, metrics, and no number of its own."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

from airflow_provider_mlops.drift.check import Verdict as DriftVerdict
from airflow_provider_mlops.evaluation.fairness import GAPS
from airflow_provider_mlops.evaluation.metrics import METRICS
from airflow_provider_mlops.evaluation.values import GateVerdict, Reason
from airflow_provider_mlops.get_provider_info import get_provider_info
from airflow_provider_mlops.retraining import Verdict as RetrainVerdict
from airflow_provider_mlops.rollout import RolloutPhase

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "dags" / "README.md", *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted(file for file in (ROOT / "airflow_provider_mlops").rglob("*.py") if ">>> " in file.read_text())
WRITTEN = [page for page in PAGES if "reference" not in page.parts]
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text())):
        if target.startswith("https://"):
            assert target.startswith("https://github.com/airflow-provider-mlops/airflow-provider-mlops"), target
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name(page)} links to {target}"
        assert found.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(found), f"{name(page)} links to {target}"


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s:]+)", page.read_text())
        waiting += [(page.parent / link).resolve() for link in links if (page.parent / link).exists()]
    assert {page for page in PAGES if "docs" in page.parts} <= reached


@pytest.mark.parametrize("file", EXAMPLES, ids=name)
def test_examples_in_docstrings_give_what_they_show(file):
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    tried = doctest.testmod(module)
    assert tried.attempted
    assert not tried.failed


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_lines_are_short_and_the_words_are_plain(page):
    text = page.read_text()
    prose = _FENCE.sub("", text)
    for number, line in enumerate(prose.splitlines(), start=1):
        if not line.startswith(("|", "!", "-", "  -")):
            assert len(line) <= 130, f"{name(page)}:{number}"
    for word in (
        "/work/",
        "/tmp/",
        "seamless",
        "powerful",
        "blazing",
        "simply",
        "effortless",
        "cutting-edge",
        "robust",
    ):
        assert word not in text.lower(), word
    assert text.isascii() or not re.search("[\u2600-\U0001faff]", text), "no emoji"


def documented() -> set[str]:
    return set(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "decisions.md").read_text()))


def codes(*modules: str) -> set[str]:
    """Every reason code that stands in the source of *modules*, wherever a decision is made."""
    found = set()
    for module in modules:
        tree = ast.parse((ROOT / "airflow_provider_mlops" / module).read_text())
        for node in ast.walk(tree):
            values = []
            if isinstance(node, ast.Call):
                values = [word.value for word in node.keywords if word.arg == "reason"]
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called in {"answer", "Finding", "Violation", "Harm", "_about"} and len(node.args) > 1:
                    values.append(node.args[1])
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                values = node.value.elts[:2] if "drift" in module else node.value.elts[:1]
            elif isinstance(node, ast.Assign):
                values = _assigned(node)
            found |= {
                value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)
            }
    return {code for code in found if re.fullmatch(r"[a-z]+(_[a-z]+)*", code)}


def _assigned(node: ast.Assign) -> list[ast.expr]:
    """The values that an assignment gives to the name ``reason``."""
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        return [
            right for left, right in zip(target.elts, value.elts, strict=True) if getattr(left, "id", "") == "reason"
        ]
    return [value] if getattr(target, "id", "") == "reason" else []


@pytest.mark.parametrize(
    "module",
    [
        "drift/check.py",
        "drift/contract.py",
        "validation/contract.py",
        "retraining/policy.py",
        "retraining/harm.py",
        "rollout/advance.py",
        "rollout/analysis.py",
    ],
)
def test_every_reason_code_is_explained(module):
    inner = {
        "started",
        "no_data",
        "too_few_requests",
        "not_proved",
        "extra_column",
    }  # a rollout goes on; off by default
    found = codes(module)
    assert found, "no code was found; has the module changed its shape?"
    assert found - documented() - inner == set()


def test_every_reason_of_the_gate_is_explained():
    assert {reason.value for reason in Reason} - documented() == set()


@pytest.mark.parametrize("verdicts", [DriftVerdict, RetrainVerdict, RolloutPhase], ids=lambda kind: kind.__module__)
def test_every_verdict_is_named(verdicts):
    assert {verdict.value for verdict in verdicts} - documented() - {"idle"} == set()


def test_every_metric_is_named_and_no_other():
    page = (ROOT / "docs" / "how-to" / "evaluate-model.md").read_text()
    for known in (*METRICS, *GAPS, *[verdict.value for verdict in GateVerdict]):
        assert f"`{known}`" in page, known
    listed = page.split("Metrics by name:")[1].split("Gaps between groups:")[0]
    assert set(re.findall(r"`(\w+)`", listed)) <= set(METRICS)


def test_every_setting_is_in_the_table_of_settings():
    page = (ROOT / "docs" / "deployment.md").read_text()
    for option in get_provider_info()["config"]["mlops"]["options"]:
        assert f"| `{option}` |" in page


def test_every_extra_is_in_the_table_of_extras():
    import tomllib

    page = (ROOT / "docs" / "deployment.md").read_text()
    for extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]:
        assert extra == "test" or f"| `{extra}` |" in page


def test_the_lines_of_the_demo_in_the_readme_were_recorded_in_one_run():
    recorded = (ROOT / "docs" / "demo.txt").read_text().splitlines()
    shown = [line for line in (ROOT / "README.md").read_text().splitlines() if re.match(r"\[ *\d+ s\]", line)]
    assert len(shown) > 5
    assert set(shown) <= set(recorded)


MEASURED = re.compile(
    r"\b\d[\d,.]*(?:\s?(?:ms|µs|s|kB|MB|MiB|GB|GiB|x)\b|\s(?:seconds|times faster|requests per second)\b)"
)
STATED = {
    "less than 1 kB": "tests/dags/test_by_hand.py",  # what an operator returns
    "within 15 seconds": "tests/dags/test_surface.py",  # a trigger does not fire within 15 seconds
}


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_no_number_is_measured_by_nobody(page):
    prose = re.sub(r"`[^`\n]+`", "", _FENCE.sub("", page.read_text()))
    for phrase in STATED:
        prose = prose.replace(phrase, "")
    assert MEASURED.findall(prose) == []


def test_what_is_stated_has_its_test():
    for file in STATED.values():
        assert (ROOT / file).exists()


def test_the_file_that_the_readme_shows_is_the_smallest_template():
    assert (ROOT / "dags" / "minimal.yaml").read_text() in (ROOT / "README.md").read_text()


def test_pictures_are_small():
    assert all(picture.stat().st_size < 200_000 for picture in (ROOT / "docs" / "images").iterdir())


def test_the_hooks_file_is_yaml_and_names_a_command():
    from ruamel.yaml import YAML

    hooks = YAML(typ="safe").load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert [(hook["id"], hook["entry"]) for hook in hooks] == [("mlops-lint", "mlops lint")]
