"""The JSON Schema and the reference page say what the model says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.pipeline import from_dict
from airflow_provider_mlops.pipeline.explain import expected
from airflow_provider_mlops.pipeline.reference import reference_page
from airflow_provider_mlops.pipeline.schedules import check_schedule
from airflow_provider_mlops.pipeline.schema import child, json_schema, keys_of, model_schema, resolve, schema_text

DOCS = Path(__file__).parents[2] / "docs" / "reference"

SMALL = {
    "mlops": 1,
    "name": "rain",
    "data": {"path": "x", "label": "y", "timestamp": "t"},
    "train": {"script": "t.py"},
    "evaluate": [{"metric": "roc_auc"}],
}


def sections():
    """Return every map of the format: its path and its schema."""
    found = []

    def visit(fragment, path):
        for key in keys_of(fragment):
            below = child(fragment, key)
            if resolve(below).get("type") == "array":
                below = child(below, 0)
            found.append((f"{path}.{key}".lstrip("."), below))
            visit(below, f"{path}.{key}")

    visit(model_schema(), "")
    return found


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


def test_the_schema_in_the_docs_is_current():
    assert (DOCS / "pipeline.schema.json").read_text() == schema_text(), "run: mlops schema --output ..."


def test_the_reference_page_in_the_docs_is_current():
    assert (DOCS / "pipeline.md").read_text() == reference_page(), "run: mlops schema --format markdown --output ..."


def test_the_schema_does_not_depend_on_the_hash_seed():
    code = "from airflow_provider_mlops.pipeline.schema import schema_text; print(schema_text(), end='')"
    for seed in ("1", "2"):
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": seed})
        assert out.stdout == schema_text()


@pytest.mark.parametrize(("path", "fragment"), sections(), ids=[path for path, _ in sections()])
def test_every_key_has_a_description_and_words_for_its_values(path, fragment):
    if path.startswith("steps.") and path.count(".") == 1:
        return  # the names of steps; the section explains them
    assert resolve(fragment).get("description") or "type" in fragment
    assert expected(fragment) != "any value"


def test_every_key_is_on_the_reference_page():
    page = reference_page()
    assert all(f"| `{path.split('.')[-1]}` |" in page for path, _ in sections() if not path.startswith("steps."))


def test_the_snippet_on_the_reference_page_loads():
    snippet = re.search(r"```yaml\n(.*?)```", reference_page(), re.DOTALL)[1]
    assert from_dict({"name": "rain", **YAML(typ="safe", pure=True).load(snippet)}).train.script == "train.py"


@pytest.mark.parametrize(
    "document",
    [
        {},
        SMALL,
        {**SMALL, "targets": {"dev": {"data": {"path": "z"}, "deploy": None}, "prod": None}},
        {
            **SMALL,
            "validate": {"null_share": {"a": 0.1}},
            "targets": {"dev": {"validate": {"null_share": {"a": None}}}},
        },
        {**SMALL, "monitor": None, "train": {"script": "t.py", "seed": None, "runs_on": "process"}},
        {**SMALL, "train": {"script": "t.py", "runs_on": {"process": {}}}},
        {**SMALL, "data": {"label": "y", "hold_out": "12.5%", "train_on": "90d"}},
        {"retrain": {"cooldown": "3d"}, "steps": {"after_train": {"operator": "a.B", "x": [1]}}},
        {**SMALL, "validate": {"ranges": {"a": [0, None]}, "domains": {"b": ["x", 1, True]}}},
    ],
)
def test_the_schema_takes_every_file_that_loads(validator, document):
    validator.validate(json.loads(json.dumps(document)))


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"notify": {}}, ""),
        ({"mode": "enforced"}, "mode"),
        ({"train": {"script": "t.R"}}, "train"),
        ({"data": {"hold_out": "20"}}, "data"),
        ({"retrain": {"cooldown": "3 days"}}, "retrain"),
        ({"evaluate": []}, "evaluate"),
        ({"evaluate": [{"at_least": 1}]}, "evaluate"),
        ({"targets": {"dev": {"mod": "x"}}}, "targets"),
        ({"steps": {"during_train": {"operator": "a.B"}}}, "steps"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(validator, document, where):
    paths = [".".join(map(str, error.absolute_path)) for error in validator.iter_errors(document)]
    assert any(path.startswith(where) for path in paths)
    assert paths


@pytest.mark.parametrize(
    "text",
    [
        "@daily",
        "@once",
        "0 6 * * MON",
        "*/15 0-6,18-23 1 jan-mar 0,7",
        "0 0 L * *",
        "0 0 * * 5#2",
        "0 0 ? * L5",
        "5 4 * * sun",
    ],
)
def test_schedules_of_airflow_are_schedules_here(text):
    assert check_schedule(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "daily",
        "60 * * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "*-5 * * * *",
        "a * * * *",
        "0 0 * * * *",
    ],
)
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ConfigError, match="is no cron line"):
        check_schedule(text)
