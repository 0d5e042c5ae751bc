"""Every mistake in a pipeline file, and the words that it gets."""

import pytest

from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.pipeline import load

GOOD = {
    "mlops": "1",
    "data": "{path: rain.parquet, label: rain, timestamp: at}",
    "train": "{script: train.py}",
    "evaluate": "[{metric: roc_auc, at_least: 0.75}]",
}

TOP = (
    "mlops, name, description, mode, schedule, start_date, owner, tags, mlflow_conn_id, data, prepare, validate, "
    "train, evaluate, approve, promote, deploy, monitor, retrain, trigger_form, steps."
)

# the lines that replace or follow the good ones, and what is said about them without "rain.yaml:"
MISTAKES = {
    # -- unknown keys
    "unknown key, near": ({"evaluat": "1"}, "5: evaluat: unknown key. Did you mean 'evaluate' or 'validate'?"),
    "unknown key, far": ({"notify": "{}"}, f"5: notify: unknown key. Known: {TOP}"),
    "key in the wrong section": ({"label": "rain"}, "5: label: unknown key. Did you mean data.label?"),
    "unknown key, misspelled and misplaced": (
        {"timestmp": "at"},
        "5: timestmp: unknown key. Did you mean data.timestamp?",
    ),
    "key of a later release": (
        {"train": "{script: train.py, runs_on: {kubernetes: {image: x}}}"},
        (
            "3: train.runs_on.process: missing. A child process of the task, on the worker.\n"
            "3: train.runs_on.kubernetes: unknown key. Known: process."
        ),
    ),
    "merge key": (
        {"train": "{script: train.py, <<: {seed: 1}}"},
        "3: train.<<: unknown key. Known: script, hyperparameters, seed, runs_on, run_timeout.",
    ),
    "unknown key of a rule": (
        {"evaluate": "[{metric: roc_auc, at_leest: 0.7}]"},
        "4: evaluate[0].at_leest: unknown key. Did you mean 'at_least' or 'at_most'?",
    ),
    "unknown step": (
        {"steps": "{befor_train: {operator: a.B}}"},
        "5: steps.befor_train: unknown step. Did you mean 'before_train' or 'after_train' or 'train'?",
    ),
    "unknown step, far": (
        {"steps": "{x: {operator: a.B}}"},
        (
            "5: steps.x: unknown step. Known: snapshot, validate, train, evaluate, register, smoke_test, approve, promote, "
            "deploy, check, decide."
        ),
    ),
    # -- missing keys
    "no version": ({"mlops": None}, "2: mlops: missing. Version of this format: write mlops: 1."),
    "no data": ({"data": None}, "1: data: missing. Where the data is and what its columns mean."),
    "no label": ({"data": "{path: x}"}, "2: data.label: missing. Column that the model is to predict."),
    "no rules": ({"evaluate": "[]"}, "4: evaluate: expected at least one entry, got none."),
    "null takes a key away": (
        {"evaluate": "null"},
        "4: evaluate: missing. Rules of the gate: every one must hold, or the candidate is refused.",
    ),
    "rule without a metric": (
        {"evaluate": "[{at_least: 0.7}]"},
        (
            "4: evaluate[0].metric: missing. Name of a metric (roc_auc), of a fairness gap or a measurement, "
            "importance_share, or package.module:function."
        ),
    ),
    "deploy to nowhere": (
        {"deploy": "{canary: {}}"},
        "5: deploy.local: missing. Serve on this machine: {} for the defaults. LocalExecutor only.",
    ),
    "step without an operator": (
        {"steps": "{after_train: {x: 1}}"},
        "5: steps.after_train.operator: missing. Import path of the operator. All other keys are its arguments.",
    ),
    # -- types
    "future version": ({"mlops": "2"}, "1: mlops: expected 1, got 2."),
    "version as text": ({"mlops": '"1"'}, "1: mlops: expected 1, got '1'. Write 1, without quotes."),
    "version as true": ({"mlops": "true"}, "1: mlops: expected 1, got true."),
    "bad name": (
        {"name": "Rain-2"},
        "5: name: expected 1 to 60 of the characters a-z, 0-9 and _, got 'Rain-2'. Write rain_2.",
    ),
    "name as a number": ({"name": "17"}, "5: name: expected 1 to 60 of the characters a-z, 0-9 and _, got 17."),
    "description as a number": (
        {"description": "1.5"},
        '5: description: expected a text, got 1.5. Put it in quotes: "1.5".',
    ),
    "unknown mode": (
        {"mode": "enforced"},
        "5: mode: expected one of observe, suggest, enforce, got 'enforced'. Did you mean 'enforce'?",
    ),
    "share in per cent": (
        {"monitor": "{drift: {ignore_shift_below: 5%}}"},
        "5: monitor.drift.ignore_shift_below: expected a number in 0..1, got '5%'. Write 0.05.",
    ),
    "share above one": (
        {"monitor": "{drift: {ignore_shift_below: 5}}"},
        "5: monitor.drift.ignore_shift_below: expected a number in 0..1, got 5.",
    ),
    "no false alarms at all": (
        {"monitor": "{drift: {false_alarms_per_30_days: 0}}"},
        "5: monitor.drift.false_alarms_per_30_days: expected a number > 0 and <= 30, got 0.",
    ),
    "number in quotes": (
        {"train": "{script: train.py, seed: '5'}"},
        "3: train.seed: expected a whole number in 0..4294967295, got '5'. Write 5, without quotes.",
    ),
    "fraction for a whole number": (
        {"train": "{script: train.py, seed: 1.5}"},
        "3: train.seed: expected a whole number in 0..4294967295, got 1.5.",
    ),
    "true for a number": (
        {"train": "{script: train.py, seed: true}"},
        "3: train.seed: expected a whole number in 0..4294967295, got true.",
    ),
    "yes for true": (
        {"evaluate": "[{metric: roc_auc, per: country, protected: yes}]"},
        "4: evaluate[0].protected: expected true or false, got 'yes'. Write true.",
    ),
    "one value for a list": (
        {"retrain": "{when: schedule}"},
        "5: retrain.when: expected a list, each one of schedule, drift, new_data, got 'schedule'. Write [schedule].",
    ),
    "a map for a list": ({"evaluate": "{metric: roc_auc}"}, "4: evaluate: expected a list, got a map."),
    "a list for a map": ({"train": "[train.py]"}, '3: train: expected a map (key: value lines), got ["train.py"].'),
    "yes for a map": (
        {"deploy": "{local: yes}"},
        "5: deploy.local: expected a map (key: value lines), got 'yes'. Write {} for the defaults.",
    ),
    "unknown place to run": (
        {"train": "{script: train.py, runs_on: docker}"},
        "3: train.runs_on: expected process or a map (key: value lines), got 'docker'.",
    ),
    "variable of Airflow": (
        {"train": "{script: t.py, runs_on: {process: {environment: [AWS_PROFILE, AIRFLOW__CORE__FERNET_KEY]}}}"},
        (
            "3: train.runs_on.process.environment[1]: 'AIRFLOW__CORE__FERNET_KEY' is Airflow's own, its connections and "
            "keys are no job's business. Take it out."
        ),
    ),
    "connection of Airflow": (
        {"train": "{script: t.py, runs_on: {process: {environment: [AIRFLOW_CONN_DB]}}}"},
        (
            "3: train.runs_on.process.environment[0]: 'AIRFLOW_CONN_DB' is Airflow's own, its connections and "
            "keys are no job's business. Take it out."
        ),
    ),
    "value of a variable": (
        {"train": "{script: t.py, runs_on: {process: {environment: [AWS_PROFILE=dev]}}}"},
        (
            "3: train.runs_on.process.environment[0]: 'AWS_PROFILE=dev' is no name of a variable. List names only "
            "(AWS_PROFILE); their values are the worker's, and stand in no file."
        ),
    ),
    "variable of the contract": (
        {"train": "{script: t.py, runs_on: {process: {environment: [MLOPS_SEED]}}}"},
        ("3: train.runs_on.process.environment[0]: 'MLOPS_SEED' is set for the job by this package. Take it out."),
    ),
    "null in a list": ({"tags": "[a, null]"}, '5: tags[1]: expected a text, got null. Put it in quotes: "null".'),
    "listed twice": ({"tags": "[a, b, a]"}, "5: tags: 'a' is listed twice."),
    "long text": ({"mode": "x" * 80}, f"5: mode: expected one of observe, suggest, enforce, got '{'x' * 60}...'."),
    # -- durations, dates, schedules
    "duration in words": (
        {"train": "{script: train.py, run_timeout: 2 hours}"},
        "3: train.run_timeout: expected a duration (45s, 30m, 12h or 7d), got '2 hours'. Write 2h.",
    ),
    "duration in weeks": (
        {"retrain": "{cooldown: 2w}"},
        "5: retrain.cooldown: expected a duration (45s, 30m, 12h or 7d), got '2w'. Write 14d.",
    ),
    "duration without a unit": (
        {"retrain": "{cooldown: 3}"},
        "5: retrain.cooldown: expected a duration (45s, 30m, 12h or 7d), got 3. Write 3d for days.",
    ),
    "no duration": (
        {"retrain": "{cooldown: soon}"},
        "5: retrain.cooldown: expected a duration (45s, 30m, 12h or 7d), got 'soon'.",
    ),
    "zero duration": (
        {"retrain": "{cooldown: 0d}"},
        "5: retrain.cooldown: expected a duration (45s, 30m, 12h or 7d), got '0d'.",
    ),
    "date of another country": (
        {"start_date": "31.1.2024"},
        "5: start_date: expected a date (2024-01-31) or a time (2024-01-31T06:00), got '31.1.2024'.",
    ),
    "hour 25": ({"schedule": '"0 25 * * *"'}, "5: schedule: '0 25 * * *' is no cron line: '25' is no hour (0..23)."),
    "day name for a month": (
        {"schedule": "0 6 * MON *"},
        "5: schedule: '0 6 * MON *' is no cron line: 'MON' is no month (1..12).",
    ),
    "four fields": (
        {"schedule": "0 6 * *"},
        (
            "5: schedule: '0 6 * *' is no cron line: it has 4 fields, not 5 (minute, hour, day of month, month, day of week). "
            'Write for example "0 6 * * MON" or "@daily".'
        ),
    ),
    "unknown preset": (
        {"schedule": '"@dayly"'},
        (
            "5: schedule: '@dayly' is no preset. Did you mean '@daily' or '@yearly'? Presets: @once, @hourly, @daily, @weekly, "
            "@monthly, @quarterly, @yearly."
        ),
    ),
    "schedule as a number": (
        {"schedule": "5"},
        '5: schedule: expected a cron line ("0 6 * * MON") or a preset ("@daily"), got 5. Put it in quotes: "5".',
    ),
    "preset without quotes": (
        {"schedule": "@daily"},
        "5: not YAML: found character '@' that cannot start any token. Put the value in quotes (\"@daily\").",
    ),
    # -- what the sections must agree on
    "train_on without time": (
        {"data": "{path: x, label: y, train_on: 90d}"},
        "2: data.train_on: needs the time of a row. Name its column: data.timestamp: COLUMN.",
    ),
    "label_delay without time": (
        {"data": "{path: x, label: y, label_delay: 7d}"},
        "2: data.label_delay: needs the time of a row. Name its column: data.timestamp: COLUMN.",
    ),
    "fresh_within without time": (
        {"data": "{path: x, label: y}", "validate": "{fresh_within: 1d}"},
        "5: validate.fresh_within: needs the time of a row. Name its column: data.timestamp: COLUMN.",
    ),
    "window without time": (
        {"data": "{path: x, label: y}", "monitor": "{window: 7d}"},
        "5: monitor.window: needs the time of a row. Name its column: data.timestamp: COLUMN.",
    ),
    "trailing without time": (
        {"data": "{path: x, label: y}", "monitor": "{drift: {trailing: 28d}}"},
        "5: monitor.drift.trailing: needs the time of a row. Name its column: data.timestamp: COLUMN.",
    ),
    "a part of the rows of live traffic": (
        {"monitor": '{drift: {served_by: ["http://127.0.0.1:8100"], max_rows: 1000}}'},
        (
            "5: monitor.drift.max_rows: goes without served_by, whose servers count all inputs of all that they were "
            "asked since they started. Take one of the two out."
        ),
    ),
    "a server that is no address": (
        {"monitor": "{drift: {served_by: [models.example]}}"},
        "5: monitor.drift.served_by[0]: expected the URL of a server (http://host:8100), got 'models.example'.",
    ),
    "hold_out of days without time": (
        {"data": "{path: x, label: y, hold_out: 14d}"},
        (
            "2: data.hold_out: a duration needs the time of a row. Name its column (data.timestamp: COLUMN), or write a "
            "share: 20%."
        ),
    ),
    "hold_out as a number": (
        {"data": "{path: x, label: y, hold_out: 20}"},
        "2: data.hold_out: expected a duration (14d) or a share (20%), got 20. Write 20d for days.",
    ),
    "hold_out of everything": (
        {"data": "{path: x, label: y, hold_out: 100%}"},
        "2: data.hold_out: expected a duration (14d) or a share (20%), got '100%'.",
    ),
    "label as timestamp": (
        {"data": "{path: x, label: y, timestamp: y}"},
        "2: data.timestamp: 'y' is the label already; the model would see what it predicts.",
    ),
    "drift without a monitor": (
        {"retrain": "{when: [drift]}"},
        (
            "5: retrain.when: 'drift' needs a monitor, and this pipeline has none. Add monitor: {schedule: \"@daily\"}, or "
            "take 'drift' out."
        ),
    ),
    "a schedule that starts nothing": (
        {"schedule": '"@daily"', "retrain": "{when: [new_data]}"},
        (
            "5: schedule: '@daily' starts nothing, because retrain.when does not hold 'schedule'. Add it there, or take "
            "the schedule out."
        ),
    ),
    "more windows than are looked at": (
        {"retrain": "{violating_windows: 4}"},
        "5: retrain.violating_windows: 4 of the last 3 windows can never be. Write at most 3, or raise of_last.",
    ),
    "weights that do not rise": (
        {"deploy": "{local: {}, canary: {weights_percent: [10, 10]}}"},
        (
            "5: deploy.canary.weights_percent: every step needs more traffic than the one before, got [10, 10]. Write for "
            "example [10, 50]; 100 follows by itself."
        ),
    ),
    "weight of 100": (
        {"deploy": "{local: {}, canary: {weights_percent: [10, 100]}}"},
        "5: deploy.canary.weights_percent[1]: expected a whole number in 1..99, got 100.",
    ),
    "no weights": (
        {"deploy": "{local: {}, canary: {weights_percent: []}}"},
        "5: deploy.canary.weights_percent: expected at least one entry, got none.",
    ),
    "privileged port": (
        {"deploy": "{local: {port: 80}}"},
        "5: deploy.local.port: expected a whole number in 1024..65535, got 80.",
    ),
    "columns and exclude": (
        {"monitor": "{drift: {columns: [a], exclude: [b]}}"},
        "5: monitor.drift.exclude: contradicts columns, which names what is watched. Keep one.",
    ),
    "range upside down": (
        {"validate": "{ranges: {age: [120, 0]}}"},
        "5: validate.ranges.age: the lowest value (120) is above the highest (0). Swap them.",
    ),
    "range of one number": (
        {"validate": "{ranges: {age: [120]}}"},
        "5: validate.ranges.age: expected a list [lowest, highest] of numbers, got [120].",
    ),
    "open range": (
        {"validate": "{ranges: {age: [null, null]}}"},
        "5: validate.ranges.age: both sides are open, which allows every value. Write [lowest, highest].",
    ),
    "loss and gain": (
        {"evaluate": "[{metric: roc_auc, max_drop_vs_champion: 0.1, min_gain_vs_champion: 0}]"},
        "4: evaluate[0].max_drop_vs_champion: contradicts min_gain_vs_champion. Keep one of them.",
    ),
    "no loss at all": (
        {"evaluate": "[{metric: roc_auc, max_drop_vs_champion: 0}]"},
        "4: evaluate[0].max_drop_vs_champion: expected a number > 0, got 0.",
    ),
    "limits that exclude each other": (
        {"evaluate": "[{metric: roc_auc, at_least: 0.9, at_most: 0.8}]"},
        "4: evaluate[0].at_least: 0.9 is above at_most (0.8): nothing can pass.",
    ),
    "rows of no slice": (
        {"evaluate": "[{metric: roc_auc, min_rows: 500}]"},
        "4: evaluate[0].min_rows: is about slices. Name the column: per: COLUMN.",
    ),
    "gain of slices": (
        {"evaluate": "[{metric: roc_auc, per: country, min_gain_vs_champion: 0}]"},
        (
            "4: evaluate[0].min_gain_vs_champion: cannot be asked of slices. They veto when they are shown worse; "
            "protected: true asks that they be shown not worse."
        ),
    ),
    "ignored and compared": (
        {"evaluate": "[{metric: roc_auc, unsafe_ignore_champion: true, max_drop_vs_champion: 0.1}]"},
        "4: evaluate[0].unsafe_ignore_champion: contradicts a limit that compares with the champion. Keep one of them.",
    ),
    "function without a direction": (
        {"evaluate": "[{metric: 'acme.metrics:profit', at_least: 1}]"},
        "4: evaluate[0].metric: a function does not tell its direction. Add higher_is_better: true or false.",
    ),
    "importance of no column": (
        {"evaluate": "[{metric: importance_share, at_most: 0.05}]"},
        (
            "4: evaluate[0].metric: importance_share and column go together: {metric: importance_share, column: COLUMN, "
            "at_most: 0.05}."
        ),
    ),
    "column of another metric": (
        {"evaluate": "[{metric: roc_auc, column: zip_code}]"},
        (
            "4: evaluate[0].metric: importance_share and column go together: {metric: importance_share, column: COLUMN, "
            "at_most: 0.05}."
        ),
    ),
    "direction of a known metric": (
        {"evaluate": "[{metric: roc_auc, higher_is_better: false}]"},
        (
            "4: evaluate[0].higher_is_better: the direction of 'roc_auc' is known. Write it only for a metric of your own "
            "(package.module:function)."
        ),
    ),
    "monitor's step without a monitor": (
        {"steps": "{after_check: {operator: a.B}}"},
        "5: steps.after_check: the step 'check' is part of the monitor, and this pipeline has none.",
    ),
    "deploy step without deploy": (
        {"steps": "{after_deploy: {operator: a.B}}"},
        "5: steps.after_deploy: there is no step 'deploy': this pipeline deploys nowhere.",
    ),
    "name of a step's task": (
        {"steps": "{after_train: {operator: a.B, task_id: x}}"},
        "5: steps.after_train.task_id: is given by the pipeline. Take it out.",
    ),
    "operator that is no path": (
        {"steps": "{after_train: {operator: MyOperator}}"},
        "5: steps.after_train.operator: expected an import path (acme.operators.MemoOperator), got 'MyOperator'.",
    ),
    # -- the trigger form
    "gate in the form": (
        {"trigger_form": "['evaluate[0].at_least']"},
        (
            "5: trigger_form[0]: 'evaluate[0].at_least' can never be changed per run: who starts a run must not move the gate "
            "it must pass."
        ),
    ),
    "mode in the form": (
        {"trigger_form": "[mode]"},
        "5: trigger_form[0]: 'mode' can never be changed per run: who starts a run must not move the gate it must pass.",
    ),
    "approval in the form": (
        {"trigger_form": "[approve.response_timeout]"},
        (
            "5: trigger_form[0]: 'approve.response_timeout' can never be changed per run: who starts a run must not move the "
            "gate it must pass."
        ),
    ),
    "judging rows in the form": (
        {"trigger_form": "[data.hold_out]"},
        "5: trigger_form[0]: 'data.hold_out' can never be changed per run: it decides which rows judge the candidate.",
    ),
    "script in the form": (
        {"trigger_form": "[train.script]"},
        (
            "5: trigger_form[0]: 'train.script' cannot be changed per run. Did you mean 'train.seed'? A run may change: data.path, data.train_on, "
            "train.seed, train.run_timeout, prepare.run_timeout and train.hyperparameters.NAME."
        ),
    ),
    "misspelled key in the form": (
        {"trigger_form": "[train.sed]"},
        (
            "5: trigger_form[0]: 'train.sed' cannot be changed per run. Did you mean 'train.seed'? A run may change: data.path, "
            "data.train_on, train.seed, train.run_timeout, prepare.run_timeout and train.hyperparameters.NAME."
        ),
    ),
    "unknown hyperparameter in the form": (
        {"train": "{script: train.py, hyperparameters: {depth: 1}}", "trigger_form": "[train.hyperparameters.dept]"},
        (
            "5: trigger_form[0]: 'train.hyperparameters.dept' is not in this pipeline. Did you mean 'depth'? Give it a value "
            "under train.hyperparameters."
        ),
    ),
    "list in the form": (
        {"train": "{script: train.py, hyperparameters: {a: [1]}}", "trigger_form": "[train.hyperparameters.a]"},
        "5: trigger_form[0]: 'train.hyperparameters.a' is a list or a map; a form changes one number, text or true/false.",
    ),
    "no value in the form": (
        {"trigger_form": "[data.train_on]"},
        "5: trigger_form[0]: 'data.train_on' has no value in this pipeline, so the form has nothing to show. Give it one.",
    ),
    "no such section in the form": (
        {"trigger_form": "[prepare.run_timeout]"},
        (
            "5: trigger_form[0]: 'prepare.run_timeout' has no value in this pipeline, so the form has nothing to show. Give it "
            "one."
        ),
    ),
    # -- secrets and paths
    "password in a URL": (
        {"data": "{path: 'https://me:hunter2@host/x.csv', label: y}"},
        (
            "2: data.path: this URL holds a password. A pipeline file holds no secret: take it out and give it to the worker: "
            "its environment variables, an instance role, or fsspec's settings in ~/.config/fsspec."
        ),
    ),
    "key in a URL": (
        {"data": "{path: 's3://lake/x?AWS_ACCESS_KEY_ID=AKIA', label: y}"},
        (
            "2: data.path: this URL holds a secret (AWS_ACCESS_KEY_ID=...). A pipeline file holds no secret: take it out and "
            "give it to the worker: its environment variables, an instance role, or fsspec's settings in ~/.config/fsspec."
        ),
    ),
    "password where another type is wanted": (
        {"train": "{script: train.py, seed: 'ftp://me:hunter2@host'}"},
        (
            "3: train.seed: this URL holds a password. A pipeline file holds no secret: take it out and give it to the worker: "
            "its environment variables, an instance role, or fsspec's settings in ~/.config/fsspec."
        ),
    ),
    "absolute script": (
        {"train": "{script: /etc/train.py}"},
        "3: train.script: '/etc/train.py' is no relative path. A script lies beside its pipeline file: write its name.",
    ),
    "script outside": (
        {"train": "{script: ../../train.py}"},
        "3: train.script: '../../train.py' leaves the DAG folder (dags). Move the script into it.",
    ),
    "script from the net": (
        {"train": "{script: 'https://host/train.py'}"},
        (
            "3: train.script: 'https://host/train.py' is no relative path. A script lies beside its pipeline file: write its "
            "name."
        ),
    ),
    "script in another language": (
        {"train": "{script: train.R}"},
        "3: train.script: expected the path of a Python file (train.py), got 'train.R'.",
    ),
    "two at once, in the order of the lines": (
        {"data": "{path: x, lable: y}", "mode": "x"},
        (
            "2: data.label: missing. Column that the model is to predict.\n"
            "2: data.lable: unknown key. Did you mean 'label'?\n"
            "5: mode: expected one of observe, suggest, enforce, got 'x'."
        ),
    ),
}


@pytest.fixture
def dags(tmp_path, monkeypatch):
    folder = tmp_path / "dags"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(("lines", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_line_its_key_and_the_next_step(dags, lines, message):
    document = {**GOOD, **lines}
    text = "".join("\n" if value is None else f"{key}: {value}\n" for key, value in document.items())
    (dags / "rain.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load("rain.yaml", root=dags)
    assert str(caught.value) == "\n".join(f"rain.yaml:{line}" for line in message.split("\n"))
    assert "hunter2" not in str(caught.value)


def test_the_smallest_file_is_enough(dags):
    (dags / "rain.yaml").write_text("".join(f"{key}: {value}\n" for key, value in GOOD.items()))
    spec = load("rain.yaml").spec
    assert spec.name == "rain"
    assert spec.mode == "suggest"


def test_a_name_that_comes_from_the_file_says_so(dags):
    (dags / "Rain-2.yaml").write_text("".join(f"{key}: {value}\n" for key, value in GOOD.items()))
    with pytest.raises(ConfigError) as caught:
        load("Rain-2.yaml")
    assert str(caught.value) == (
        "Rain-2.yaml:1: name: expected 1 to 60 of the characters a-z, 0-9 and _, got 'Rain-2'. Write rain_2. It "
        "comes from the file's name: rename the file, or add the key `name`."
    )
