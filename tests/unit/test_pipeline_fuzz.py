"""Whatever stands in a pipeline file, the answer is a specification or a ConfigError."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.pipeline import load, render
from airflow_provider_mlops.pipeline.schema import child, keys_of, model_schema

QUIET = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

VALID = {
    "mlops": 1,
    "data": {"path": "x.parquet", "label": "y", "timestamp": "t", "hold_out": "14d"},
    "train": {"script": "train.py", "hyperparameters": {"depth": 6}},
    "evaluate": [{"metric": "roc_auc", "at_least": 0.7}],
    "monitor": {"drift": {"exclude": ["id"]}},
    "deploy": {"local": {}, "canary": {"weights_percent": [10, 50]}},
    "steps": {"after_train": {"operator": "acme.Op", "text": "x"}},
    "trigger_form": ["train.hyperparameters.depth"],
    "targets": {"dev": {"mode": "observe"}},
}

words = st.sampled_from(
    [
        "",
        "yes",
        "5%",
        "7d",
        "20%",
        "-1",
        "@daily",
        "* * * * *",
        "train.py",
        "../t.py",
        "a.B",
        "x:y",
        "s3://a:b@c/d",
        "\u2028",
        "'",
        "#",
    ]
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    words,
    st.text(max_size=8),
)


def known_keys():
    found = set()

    def visit(fragment, depth):
        for key in keys_of(fragment):
            found.add(key)
            if depth < 4:
                visit(child(fragment, key), depth + 1)

    visit(model_schema(), 0)
    visit(child(child(model_schema(), "evaluate"), 0), 0)
    return sorted(found)


keys = st.one_of(st.sampled_from(known_keys()), st.sampled_from(["targets", "prod", "<<"]), st.text(max_size=5))
values = st.recursive(
    scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(keys, below, max_size=4), max_leaves=12
)


def answer(folder, data):
    """Return the specification, or ``None`` when the file was refused in the way that was promised."""
    file = folder / "rain.yaml"
    file.write_bytes(data)
    try:
        return load(file)
    except ConfigError as error:
        lines = str(error).splitlines()
        assert lines
        assert all(line.startswith(f"{file}:") for line in lines), lines
        return None


def places(value, path=()):
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in children:
        yield from places(below, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@QUIET
@given(st.dictionaries(keys, values, max_size=6))
def test_any_document_gives_a_specification_or_a_config_error(tmp_path, document):
    answer(tmp_path, json.dumps(document).encode())


@QUIET
@given(st.sampled_from(list(places(VALID))), values)
def test_any_value_at_any_place_gives_a_specification_or_a_config_error(tmp_path, path, value):
    document = replaced(VALID, path, value)
    loaded = answer(tmp_path, json.dumps(document).encode())
    if loaded is not None:
        (tmp_path / "again.yaml").write_text(render(loaded))
        assert load(tmp_path / "again.yaml").spec == loaded.spec


@QUIET
@given(st.binary(max_size=200))
def test_any_bytes_give_a_specification_or_a_config_error(tmp_path, data):
    answer(tmp_path, data)


pieces = st.sampled_from(
    ["mlops: 1", "data", ":", "- ", "{", "}", "[", "]", ",", "\n", "\n  ", "\t", "&a ", "*a", "!!int ", "|", ">", "'", '"', "%", "@",
     "`", "? ", "#", "---", "...", "<<: ", "\\", "x", "\u00e9", "\U0001f600", "1e5", "0x1F", "~"]
)  # fmt: skip


@QUIET
@given(st.lists(pieces, max_size=25).map("".join))
def test_any_heap_of_yaml_signs_gives_a_specification_or_a_config_error(tmp_path, text):
    answer(tmp_path, text.encode())


@QUIET
@given(st.text(max_size=60))
def test_any_text_as_a_value_survives_render(tmp_path, text):
    document = {**VALID, "description": text or "x", "tags": [text or "x"]}
    document["train"] = {"script": "train.py", "hyperparameters": {"depth": text, text: 1}}
    loaded = answer(tmp_path, json.dumps(document).encode())
    if loaded is not None:
        (tmp_path / "again.yaml").write_text(render(loaded), encoding="utf-8")
        assert load(tmp_path / "again.yaml").spec.train == loaded.spec.train


def test_the_valid_document_is_valid(tmp_path):
    loaded = answer(tmp_path, json.dumps(VALID).encode())
    assert loaded is not None
    with pytest.raises(ConfigError):
        load(tmp_path / "rain.yaml", target="prod")
