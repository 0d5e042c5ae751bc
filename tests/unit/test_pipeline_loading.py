"""Files become a specification: layers, targets, origins, hostile texts."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.pipeline import PipelineSpec, from_dict, load, render, target_names
from airflow_provider_mlops.pipeline.document import MAX_BYTES

SMALL = """\
mlops: 1
data: {path: rain.parquet, label: rain}
train: {script: train.py}
evaluate: [{metric: roc_auc, at_least: 0.75}]
"""

FULL = """\
mlops: 1
name: fraud
description: "Finds fraud: daily"
mode: enforce
schedule: "0 6 * * MON"
start_date: 2025-02-03T06:00
owner: risk
tags: [ml, "NO"]
data:
  path: s3://lake/tx/
  label: is_fraud
  timestamp: at
  entity: customer
  columns: [amount, country]
  label_delay: 7d
  train_on: 90d
  hold_out: 14d
prepare: {script: features.py, hyperparameters: {lag: 3}, run_timeout: 30m}
validate:
  if_invalid: warn
  null_share: {amount: 0.05}
  unique: [id]
  ranges: {amount: [0, null]}
  domains: {country: [NO, SE], vip: [true, false], level: [1, 2]}
  min_rows: 1000
  fresh_within: 36h
train:
  script: jobs/train.py
  hyperparameters: {depth: 6, eta: 1.5e-3, booster: on, layers: [8, {size: 4}]}
  seed: 7
  runs_on: {process: {python: /opt/venv/bin/python}}
  run_timeout: 90m
evaluate:
  - {metric: roc_auc, at_least: 0.80, max_drop_vs_champion: 0.005}
  - {metric: roc_auc, at_least: 0.75, per: country, min_rows: 500, protected: true}
  - metric: acme.metrics:profit
    higher_is_better: true
approve: {assigned_users: [risk-lead], response_timeout: 2d}
deploy:
  local: {port: 8123, model_environment: model}
  canary: {weights_percent: [10, 30, 60], min_requests_per_step: 2500, step_timeout: 30m, if_inconclusive: hold}
  bake: 10m
monitor:
  schedule: "@daily"
  window: 1d
  drift: {ignore_shift_below: 0.1, false_alarms_per_30_days: 2, min_rows: 100, exclude: [id]}
retrain: {when: [schedule, drift], violating_windows: 1, of_last: 1, cooldown: 1d, max_runs_per_30_days: 9, breaker_after: 2}
trigger_form: [train.hyperparameters.depth, data.train_on]
steps:
  after_evaluate: {operator: acme.ops.MemoOperator, text: "{{ ds }}", retries: 2}
targets:
  dev:
    mode: observe
    schedule: null
    data: {path: sample.parquet}
    train: {runs_on: process, hyperparameters: {booster: null}}
    deploy: null
  prod: {}
"""


@pytest.fixture
def dags(tmp_path, monkeypatch):
    folder = tmp_path / "dags"
    (folder / "team" / "fraud").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# -- what a file says --


def test_a_small_file_gets_safe_defaults(dags):
    spec = load(write(dags / "rain.yaml", SMALL)).spec
    assert spec.mode == "suggest"
    assert spec.schedule is None
    assert spec.start_date == datetime(2024, 1, 1, tzinfo=UTC)
    assert spec.data.hold_out == 0.2
    assert spec.train.run_timeout == timedelta(hours=1)
    assert spec.train.runs_on.process.python is None
    assert (spec.deploy, spec.monitor, spec.approve, spec.prepare) == (None, None, None, None)
    assert (spec.retrain.when, spec.retrain.cooldown) == (("schedule",), timedelta(days=3))


def test_a_full_file_is_read_in_the_words_of_yaml_1_2(dags):
    spec = load(write(dags / "x.yaml", FULL)).spec
    assert spec.tags == ("ml", "NO")
    assert spec.validation.domains == {"country": ("NO", "SE"), "vip": (True, False), "level": (1, 2)}
    assert spec.validation.ranges == {"amount": (0, None)}
    assert spec.train.hyperparameters == {"depth": 6, "eta": 0.0015, "booster": "on", "layers": [8, {"size": 4}]}
    assert spec.data.hold_out == timedelta(days=14)
    assert spec.start_date == datetime(2025, 2, 3, 6, tzinfo=UTC)
    assert spec.evaluate[2].higher_is_better is True
    assert spec.deploy.canary.weights_percent == (10, 30, 60)
    assert spec.monitor.window == timedelta(days=1)
    assert spec.steps["after_evaluate"].arguments == {"text": "{{ ds }}", "retries": 2}


def test_a_specification_cannot_be_changed(dags):
    spec = load(write(dags / "rain.yaml", SMALL)).spec
    with pytest.raises(ValueError, match="frozen"):
        spec.mode = "enforce"
    with pytest.raises(ValueError, match="frozen"):
        spec.data.label = "x"


def test_paths_start_at_the_folder_of_the_pipeline(dags):
    loaded = load(write(dags / "team" / "rain.yaml", SMALL))
    assert loaded.data_path == str(dags / "team" / "rain.parquet")
    assert loaded.locate("../x/train.py") == str(dags / "x" / "train.py")
    assert loaded.locate("s3://lake/x") == "s3://lake/x"


def test_a_script_may_lie_anywhere_in_the_dag_folder(dags):
    file = write(dags / "team" / "rain.yaml", SMALL.replace("train.py", "../common/train.py"))
    assert load(file, root=dags).spec.train.script == "../common/train.py"
    with pytest.raises(ConfigError, match=r"leaves the DAG folder \(team\)"):
        load(file, root=dags / "team")
    with pytest.raises(ConfigError, match=r"leaves the DAG folder \(team\)"):
        load(file)


# -- layers --


def test_layers_merge_from_the_outermost_folder_to_the_target(dags):
    write(dags / "_mlops.yaml", "owner: all\ntags: [all]\nretrain: {cooldown: 9d, breaker_after: 9}\n")
    write(dags / "team" / "_mlops.yaml", "owner: team\nretrain: {cooldown: 5d}\ntargets: {prod: {mode: enforce}}\n")
    file = write(dags / "team" / "fraud" / "rain.yaml", SMALL + "tags: [mine]\n")
    loaded = load(file, root=dags, target="prod")
    assert loaded.spec.owner == "team"
    assert loaded.spec.tags == ("mine",)  # lists replace
    assert (loaded.spec.retrain.cooldown, loaded.spec.retrain.breaker_after) == (timedelta(days=5), 9)  # maps merge
    assert loaded.spec.mode == "enforce"
    assert loaded.files == (dags / "_mlops.yaml", dags / "team" / "_mlops.yaml", file)
    assert loaded.file == file


def test_defaults_above_the_dag_folder_do_not_count(dags):
    write(dags / "_mlops.yaml", "owner: all\n")
    file = write(dags / "team" / "fraud" / "rain.yaml", SMALL)
    assert load(file, root=dags).spec.owner == "all"
    assert load(file, root=dags / "team").spec.owner is None
    assert load(file).spec.owner == "all"


def test_without_a_dag_folder_five_levels_are_looked_at(dags):
    write(dags / "_mlops.yaml", "owner: all\n")
    folder = dags / "a" / "b" / "c" / "d"
    (folder / "e").mkdir(parents=True)
    assert load(write(folder / "rain.yaml", SMALL)).spec.owner == "all"
    assert load(write(folder / "e" / "rain.yaml", SMALL)).spec.owner is None


def test_null_removes_what_an_outer_layer_said(dags):
    write(dags / "_mlops.yaml", "owner: all\nmonitor: {}\nretrain: {cooldown: 9d}\n")
    file = write(dags / "rain.yaml", SMALL + "owner: null\nmonitor: null\nretrain: {cooldown: }\n")
    spec = load(file).spec
    assert (spec.owner, spec.monitor, spec.retrain.cooldown) == (None, None, timedelta(days=3))


def test_an_error_in_the_defaults_is_named_with_their_file(dags):
    write(dags / "_mlops.yaml", "\nretrain: {cooldown: 9}\n")
    write(dags / "team" / "rain.yaml", SMALL + "mode: x\n")
    with pytest.raises(ConfigError) as caught:
        load("team/rain.yaml")
    assert str(caught.value) == (
        "_mlops.yaml:2: retrain.cooldown: expected a duration (45s, 30m, 12h or 7d), got 9. Write 9d for days.\n"
        "team/rain.yaml:5: mode: expected one of observe, suggest, enforce, got 'x'."
    )


# -- targets --


def test_a_target_is_laid_upon_the_file(dags):
    file = write(dags / "x.yaml", FULL)
    dev = load(file, target="dev").spec
    assert (dev.mode, dev.schedule, dev.deploy, dev.data.path) == ("observe", None, None, "sample.parquet")
    assert dev.data.label == "is_fraud"
    assert dev.train.hyperparameters == {"depth": 6, "eta": 0.0015, "layers": [8, {"size": 4}]}
    assert load(file, target="prod").spec == load(file).spec


def test_an_unknown_target_is_named_with_its_neighbors(dags):
    write(dags / "x.yaml", FULL)
    with pytest.raises(ConfigError) as caught:
        load("x.yaml", target="prodd")
    line = FULL[: FULL.index("targets:")].count("\n") + 1
    assert (
        str(caught.value)
        == f"x.yaml:{line}: targets: x.yaml has no target 'prodd'. Did you mean 'prod'? Known: dev, prod."
    )


def test_a_file_without_targets_is_the_same_everywhere(dags):
    file = write(dags / "rain.yaml", SMALL)
    assert load(file, target="prod").spec == load(file).spec
    assert target_names(file) == []
    assert target_names(write(dags / "x.yaml", FULL)) == ["dev", "prod"]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            "[prod]",
            "rain.yaml:5: targets: expected a map of names, got a list or a value. Write prod: {mode: enforce}.",
        ),
        ("{prod: enforce}", "rain.yaml:5: targets.prod: expected a map (key: value lines)."),
        (
            "{prod: {mode: x}}",
            "rain.yaml:5: mode: expected one of observe, suggest, enforce, got 'x'.",
        ),
        ("{prod: {targets: {}}}", "rain.yaml:5: targets: unknown key. Did you mean 'tags'?"),
    ],
)
def test_a_broken_target_is_an_error(dags, targets, message):
    write(dags / "rain.yaml", SMALL + f"targets: {targets}\n")
    with pytest.raises(ConfigError) as caught:
        load("rain.yaml", target="prod")
    assert str(caught.value) == message


# -- origins --


def test_every_value_knows_where_it_was_written(dags):
    write(dags / "_mlops.yaml", "owner: all\n")
    write(dags / "rain.yaml", SMALL + "mode: enforce\ntargets:\n  dev:\n    mode: observe\n    schedule: null\n")
    origins = load("rain.yaml", target="dev").origins
    assert str(origins["owner"]) == "_mlops.yaml:1"
    assert str(origins["data.label"]) == "rain.yaml:2"
    assert str(origins["evaluate[0].at_least"]) == "rain.yaml:4"
    assert str(origins["mode"]) == "rain.yaml:8 (target dev)"
    assert str(origins["schedule"]) == "rain.yaml:9 (target dev)"
    assert str(origins["name"]) == "file name"
    assert "train.seed" not in origins


# -- render --


def test_render_shows_each_value_and_who_said_it(dags):
    write(dags / "_mlops.yaml", "owner: all\nmlflow_conn_id: mlflow_all\n")
    write(dags / "rain.yaml", SMALL + "targets: {dev: {mode: observe}, prod: {mlflow_conn_id: mlflow_prod}}\n")
    lines = render(load("rain.yaml", target="dev")).splitlines()
    shown = {line.split(":")[0].strip(): line for line in lines}
    at = lines[0].index("  # ")
    assert all(line.index("  # ") == at for line in lines if "  # " in line)
    assert shown["owner"].split() == ["owner:", "all", "#", "_mlops.yaml:1"]
    assert shown["mode"].endswith("# rain.yaml:5 (target dev)")
    assert shown["name"].endswith("# file name")
    assert shown["mlflow_conn_id"].split() == ["mlflow_conn_id:", "mlflow_all", "#", "_mlops.yaml:2"]
    assert load("rain.yaml", target="prod").spec.mlflow_conn_id == "mlflow_prod"
    assert shown["label"].endswith("# rain.yaml:2")
    assert shown["seed"].split() == ["seed:", "0", "#", "default"]
    assert shown["- metric"].split() == ["-", "metric:", "roc_auc", "#", "rain.yaml:4"]


@pytest.mark.parametrize("target", [None, "dev", "prod"])
def test_what_render_prints_says_the_same(dags, target):
    loaded = load(write(dags / "x.yaml", FULL), target=target)
    again = load(write(dags / "team" / "y.yaml", render(loaded)))
    assert again.spec == loaded.spec
    assert [line.split("  # ")[0] for line in render(again).splitlines()] == [
        line.split("  # ")[0] for line in render(loaded).splitlines()
    ]


# -- the same from Python --


def test_python_says_it_in_the_same_words(dags):
    values = {
        "mlops": 1,
        "name": "rain",
        "data": {"path": "rain.parquet", "label": "rain"},
        "train": {"script": "train.py"},
        "evaluate": ({"metric": "roc_auc", "at_least": 0.75},),
    }
    assert from_dict(values) == load(write(dags / "rain.yaml", SMALL)).spec


def test_python_gets_the_same_messages_without_a_line():
    values = {"mlops": 1, "name": "rain", "data": {"path": "x", "lable": "y"}, "train": {"script": "../t.py"}}
    with pytest.raises(ConfigError) as caught:
        from_dict(values)
    assert str(caught.value).splitlines() == [
        "data.label: missing. Column that the model is to predict.",
        "data.lable: unknown key. Did you mean 'label'?",
        "evaluate: missing. Rules of the gate: every one must hold, or the candidate is refused.",
        "train.script: '../t.py' leaves the folder of the pipeline. Move the script into it.",
    ]


@pytest.mark.parametrize("value", [None, 5, "x", [], {1: 2}, {"data": {None: 1}}])
def test_python_values_that_are_no_pipeline_are_config_errors(value):
    with pytest.raises(ConfigError):
        from_dict(value)


# -- hostile and broken texts --

BROKEN = {
    "empty": (
        b"",
        "rain.yaml:1: expected a map (key: value lines) at the top, got nothing. `mlops init` writes a file to start from.",
    ),
    "only a comment": (
        b"# nothing\n",
        "rain.yaml:1: expected a map (key: value lines) at the top, got nothing. `mlops init` writes a file to start from.",
    ),
    "a list": (
        b"\n- mlops: 1\n",
        "rain.yaml:2: expected a map (key: value lines) at the top, got a list. `mlops init` writes a file to start from.",
    ),
    "a word": (
        b"mlops\n",
        "rain.yaml:1: expected a map (key: value lines) at the top, got one value. `mlops init` writes a file to start from.",
    ),
    "python object": (
        b"mlops: 1\ndata: !!python/object/apply:os.system [id]\n",
        "rain.yaml:2: 'tag:yaml.org,2002:python/object/apply:os.system': tags are not read. Write plain values.",
    ),
    "own tag": (b"mlops: !int 1\n", "rain.yaml:1: '!int': tags are not read. Write plain values."),
    "alias": (
        b"mlops: 1\na: &a [1]\nb: *a\n",
        "rain.yaml:3: *a: aliases are not read. Write the value out, or put it into _mlops.yaml.",
    ),
    "tab": (b"mlops: 1\ndata:\n\tpath: x\n", "rain.yaml:3: not YAML: a tab; YAML indents with spaces."),
    "duplicate key": (
        b"mlops: 1\ndata: {}\nname: a\nname: b\ndata: {}\n",
        (
            "rain.yaml:4: 'name' is here a second time; the first is in line 3. Keep one.\n"
            "rain.yaml:5: 'data' is here a second time; the first is in line 2. Keep one."
        ),
    ),
    "duplicate key below": (
        b"data:\n  path: a\n  path: b\n",
        "rain.yaml:3: 'path' is here a second time; the first is in line 2. Keep one.",
    ),
    "number as key": (b"mlops: 1\n5: 1\n", "rain.yaml:2: a key must be text, got 5. Put it in quotes."),
    "true as key": (b"true: 1\n", "rain.yaml:1: a key must be text, got true. Put it in quotes."),
    "list as key": (b"? [a]\n: 1\n", "rain.yaml:1: a key must be text, got a map or a list. Put it in quotes."),
    "no end": (b"data: {path: x\n", "rain.yaml:2: not YAML: expected ',' or '}', but got '<stream end>'."),
    "not a number": (b"mlops: .nan\n", "rain.yaml:1: .nan: infinity and NaN are no values here."),
    "infinity by size": (b"mlops: 1e999\n", "rain.yaml:1: 1e999: infinity and NaN are no values here."),
    "digits": (
        b"mlops: " + b"1" * 5000 + b"\n",
        "rain.yaml:1: a number of 5000 digits. Put it in quotes if it is text.",
    ),
    "two documents": (
        b"mlops: 1\n---\nmlops: 1\n",
        "rain.yaml:2: a second document begins here. A pipeline is one file.",
    ),
    "YAML 1.1": (b"%YAML 1.1\n---\nmlops: 1\n", "rain.yaml:2: pipeline files are YAML 1.2. Take the %YAML line out."),
    "binary": (b"PK\x03\x04", "rain.yaml:1: the file holds the control character '\\x03'; it is not text."),
    "zero byte": (b"mlops: 1\n\x00", "rain.yaml:2: the file holds the control character '\\x00'; it is not text."),
    "Latin-1": (b"mlops: 1\nowner: J\xf8rgen\n", "rain.yaml:2: byte 0xf8 is not UTF-8. Save the file as UTF-8."),
    "UTF-16": ("mlops: 1".encode("utf-16"), "rain.yaml:1: byte 0xff is not UTF-8. Save the file as UTF-8."),
    "deep": (b"a: " + b"[" * 10_000, "rain.yaml:1: more than 20 levels of maps and lists."),
    "deep blocks": (
        "".join("  " * i + "a:\n" for i in range(60)).encode(),
        "rain.yaml:20: more than 20 levels of maps and lists.",
    ),
    "large": (
        b"# " + b"x" * 10_000_000,
        f"rain.yaml:1: the file has more than {MAX_BYTES:,} bytes, the most that a pipeline file may have.",
    ),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_text_that_is_no_pipeline_is_named_with_its_line(dags, data, message):
    write(dags / "rain.yaml", data)
    with pytest.raises(ConfigError) as caught:
        load("rain.yaml")
    assert str(caught.value) == message


def test_a_billion_laughs_ends_at_the_first(dags):
    laughs = "a: &a [x,x]\n" + "".join(f"{c}: &{c} [*{p},*{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True))
    write(dags / "rain.yaml", laughs)
    with pytest.raises(ConfigError, match=r"rain.yaml:2: \*a: aliases are not read"):
        load("rain.yaml")


def test_windows_line_ends_and_a_byte_order_mark_are_read(dags):
    text = b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode()
    assert load(write(dags / "rain.yaml", text)).spec == load(write(dags / "rain.yaml", SMALL)).spec


def test_a_missing_file_is_named_with_its_neighbors(dags):
    write(dags / "rain.yaml", SMALL)
    with pytest.raises(ConfigError) as caught:
        load("rian.yaml")
    assert str(caught.value) == "rian.yaml: there is no such file. Did you mean 'rain.yaml'?"


def test_a_folder_is_no_pipeline(dags):
    with pytest.raises(ConfigError, match=r"^team: is a folder\. Name a pipeline file in it\.$"):
        load("team")


def test_a_stub_is_no_pipeline_and_its_pipeline_is_named(dags):
    write(dags / "rain.yaml", SMALL)
    write(dags / "rain.py", "")
    with pytest.raises(
        ConfigError, match=r"^rain\.py: is Python, and a pipeline file is YAML\. Did you mean 'rain\.yaml'\?$"
    ):
        load("rain.py")


def test_reading_a_pipeline_imports_neither_airflow_nor_anything_heavy():
    code = (
        "import sys, airflow_provider_mlops.pipeline\n"
        "heavy = {'airflow', 'numpy', 'pyarrow', 'mlflow', 'pandas', 'scipy', 'sqlalchemy', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_specification_may_be_made_without_a_file_and_still_be_checked():
    with pytest.raises(ValueError, match=r"retrain\.when: 'drift' needs a monitor"):
        PipelineSpec.model_validate(
            {
                "mlops": 1,
                "name": "a",
                "data": {"path": "x", "label": "y"},
                "train": {"script": "a.py"},
                "evaluate": [{"metric": "mae"}],
                "retrain": {"when": ["drift"]},
            }
        )
