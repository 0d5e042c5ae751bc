"""`mlops lint`: what can be known before Airflow sees a pipeline."""

from pathlib import Path

import pytest

from airflow_provider_mlops.cli.init import stub
from airflow_provider_mlops.cli.main import main

PIPELINE = """\
mlops: 1
data:
  path: rain.csv
  label: rain
train: {script: train.py}
evaluate: [{metric: roc_auc, at_least: 0.75}]
"""


@pytest.fixture
def dags(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rain.yaml").write_text(PIPELINE)
    (tmp_path / "rain.py").write_text(stub("rain"))
    (tmp_path / "rain.csv").write_text("at,wind,rain\n2024-01-01,3,1\n")
    (tmp_path / "train.py").write_text("import mlflow\nmlflow.autolog()\nDATA = 'MLOPS_DATA_URI'\n")
    return tmp_path


def lint(capsys, *paths):
    code = main(["lint", *(paths or ("rain.yaml",))])
    *lines, summary = capsys.readouterr().out.splitlines()
    return code, lines, summary


def test_a_sound_pipeline_is_silent(dags, capsys):
    assert lint(capsys) == (0, [], "1 pipeline, 0 errors, 0 warnings")


def change(file, *pair):
    text = Path(file).read_text()
    assert pair[0] in text
    Path(file).write_text(text.replace(*pair))


FINDINGS = {
    "broken": (
        lambda: change("rain.yaml", "0.75", "75%"),
        "rain.yaml:6: evaluate[0].at_least: expected a number, got '75%'. Write 0.75, or 75 where the number is counted in per cent.",
    ),
    "no script": (
        lambda: Path("train.py").rename("trian.py"),
        "rain.yaml:5: train.script: there is no file 'train.py'. Did you mean 'trian.py'?",
    ),
    "script that is no Python": (
        lambda: change("train.py", "autolog()", "autolog("),
        "rain.yaml:5: train.script: train.py:2: not Python: '(' was never closed.",
    ),
    "no data": (
        lambda: Path("rain.csv").unlink(),
        "rain.yaml:3: data.path: there is no data at '{here}/rain.csv'. A relative path starts at the pipeline's folder.",
    ),
    "unknown label": (
        lambda: change("rain.yaml", "label: rain", "label: rian"),
        "rain.yaml:4: data.label: the data has no column 'rian'. Did you mean 'rain'? Columns: at, wind, rain.",
    ),
    "unknown column of the contract": (
        lambda: change("rain.yaml", "mlops: 1\n", "mlops: 1\nvalidate: {ranges: {wint: [0, 9]}}\n"),
        "rain.yaml:2: validate.ranges.wint: the data has no column 'wint'. Did you mean 'wind'? Columns: at, wind, rain.",
    ),
    "unknown metric": (
        lambda: change("rain.yaml", "roc_auc", "roc_acu"),
        "rain.yaml:6: evaluate[0].metric: 'roc_acu' is no metric. Did you mean 'roc_auc'?",
    ),
    "limit outside the metric": (
        lambda: change("rain.yaml", "0.75", "75"),
        (
            "rain.yaml:6: evaluate[0].metric: roc_auc: at_least is 75, and roc_auc lies in 0..1. Write it in the metric's own "
            "units."
        ),
    ),
    "unknown forbidden column": (
        lambda: change(
            "rain.yaml", "at_least: 0.75}", "at_least: 0.75}, {metric: importance_share, column: wnd, at_most: 0.1}"
        ),
        "rain.yaml:6: evaluate[1].column: the data has no column 'wnd'. Did you mean 'wind'? Columns: at, wind, rain.",
    ),
    "forbidden column without a limit": (
        lambda: change("rain.yaml", "at_least: 0.75}", "at_least: 0.75}, {metric: importance_share, column: wind}"),
        (
            "rain.yaml:6: evaluate[1].metric: importance_share is a share of one column: give column: COLUMN and at_most, "
            "0..1, and no more."
        ),
    ),
    "ranking without queries": (
        lambda: change("rain.yaml", "roc_auc", "ndcg"),
        (
            "rain.yaml:6: evaluate[0].metric: ndcg ranks the rows of a query against each other. Name its column: "
            "data.entity: COLUMN."
        ),
    ),
    "metrics of different labels": (
        lambda: change("rain.yaml", "at_least: 0.75}", "at_least: 0.75}, {metric: rmse}"),
        "rain.yaml:6: evaluate: no kind of label has all of these metrics: roc_auc, rmse.",
    ),
    "schedule that never comes": (
        lambda: change("rain.yaml", "mlops: 1\n", 'mlops: 1\nschedule: "0 0 30 2 *"\n'),
        "rain.yaml:2: schedule: '0 0 30 2 *' never comes round: no month has that day.",
    ),
    "no stub": (
        lambda: Path("rain.py").unlink(),
        "rain.yaml:1: there is no rain.py beside it, so Airflow shows no DAG. It reads:",
    ),
    "stub of something else": (
        lambda: change("rain.py", "load_dags", "load"),
        "rain.py:1: does not call load_dags(__file__), so rain.yaml gives no DAG.",
    ),
    "broken target": (
        lambda: change("rain.yaml", "mlops: 1\n", "mlops: 1\ntargets: {prod: {mod: enforce}}\n"),
        "rain.yaml:2: mod: unknown key. Did you mean 'mode'? (target prod)",
    ),
    "target with another script": (
        lambda: change("rain.yaml", "mlops: 1\n", "mlops: 1\ntargets: {prod: {train: {script: x.py}}}\n"),
        "rain.yaml:2: train.script: there is no file 'x.py'.",
    ),
}


@pytest.mark.parametrize(("breaks", "message"), FINDINGS.values(), ids=FINDINGS.keys())
def test_a_finding_is_a_line_and_the_exit_code_1(dags, capsys, breaks, message):
    breaks()
    code, lines, summary = lint(capsys)
    assert lines[0].startswith(message.format(here=dags))
    assert (code, summary) == (1, "1 pipeline, 1 error, 0 warnings")


WARNINGS = {
    "no model": (
        lambda: change("train.py", "autolog", "log_metric"),
        "rain.yaml:5: train.script: warning: no call of log_model or autolog; a training without a model fails.",
    ),
    "data of its own": (
        lambda: change("train.py", "MLOPS_DATA_URI", "all.csv"),
        (
            "rain.yaml:5: train.script: warning: does not read MLOPS_DATA_URI, so it may train on the rows that are to "
            "judge it."
        ),
    ),
    "more often than is allowed": (
        lambda: change("rain.yaml", "mlops: 1\n", 'mlops: 1\nschedule: "@daily"\n'),
        (
            "rain.yaml:2: schedule: warning: comes round 30 times in 30 days, and retrain allows 5 trainings, 3d apart: the "
            "other runs stop at decide. Train less often, or change retrain.max_runs_per_30_days and retrain.cooldown."
        ),
    ),
    "own server": (
        lambda: change("train.py", "import mlflow\n", "import mlflow\nmlflow.set_tracking_uri('x')\n"),
        "rain.yaml:5: train.script: warning: line 2 chooses a tracking server or experiment; its run would not be found.",
    ),
    "script that looks like a DAG file": (
        lambda: change("train.py", "import mlflow\n", "import mlflow  # not an Airflow DAG\n"),
        (
            'rain.yaml:5: train.script: warning: holds the words "airflow" and "dag", so Airflow would run it as a DAG file. '
            "Name it in .airflowignore."
        ),
    ),
    "nothing to hold a first model to": (
        lambda: change("rain.yaml", "at_least: 0.75", "max_drop_vs_champion: 0.01"),
        (
            "rain.yaml:6: evaluate: warning: no rule limits a metric itself, so the first model will be refused "
            "(no_rule). Give a rule at_least or at_most."
        ),
    ),
    "slices only": (
        lambda: change("rain.yaml", "at_least: 0.75", "at_least: 0.75, per: wind"),
        (
            "rain.yaml:6: evaluate: warning: no rule looks at a metric of the whole evaluation set, so once there is a "
            "champion every candidate will be refused (no_rule). Write one without per."
        ),
    ),
    "limit on the wrong side": (
        lambda: change("rain.yaml", "{metric: roc_auc, at_least: 0.75}", "{metric: log_loss, at_least: 0.4}"),
        (
            "rain.yaml:6: evaluate[0].at_least: warning: of log_loss less is better, so at_least lets bad models pass. "
            "Write at_most."
        ),
    ),
    "data of another machine": (
        lambda: change("rain.yaml", "rain.csv", "/no/such/rain.csv"),
        "rain.yaml:3: data.path: warning: there is no '/no/such/rain.csv' on this machine.",
    ),
}


@pytest.mark.parametrize(("breaks", "message"), WARNINGS.values(), ids=WARNINGS.keys())
def test_a_warning_does_not_change_the_exit_code(dags, capsys, breaks, message):
    breaks()
    assert lint(capsys) == (0, [message], "1 pipeline, 0 errors, 1 warning")


def test_a_target_that_a_file_does_not_have_is_told(dags, capsys):
    warning = "rain.yaml:1: targets: warning: has none, so 'prod' changes nothing here."
    assert lint(capsys, "--target", "prod", "rain.yaml") == (0, [warning], "1 pipeline, 0 errors, 1 warning")
    change("rain.yaml", "mlops: 1\n", "mlops: 1\ntargets: {prod: {mode: enforce}}\n")
    assert lint(capsys, "--target", "prod", "rain.yaml") == (0, [], "1 pipeline, 0 errors, 0 warnings")
    code, lines, summary = lint(capsys, "--target", "prd", "rain.yaml")
    assert (code, summary) == (1, "1 pipeline, 1 error, 0 warnings")
    assert "has no target 'prd'. Did you mean 'prod'?" in lines[0]


def test_a_weekly_schedule_is_allowed_as_it_stands(dags, capsys):
    change("rain.yaml", "mlops: 1\n", 'mlops: 1\nschedule: "0 6 * * MON"\n')
    assert lint(capsys) == (0, [], "1 pipeline, 0 errors, 0 warnings")


def test_remote_data_is_not_looked_at(dags, capsys):
    change("rain.yaml", "rain.csv", "s3://no-such-bucket/rain/")
    assert lint(capsys) == (0, [], "1 pipeline, 0 errors, 0 warnings")


def test_a_metric_of_the_users_own_is_not_imported(dags, capsys):
    change("rain.yaml", "{metric: roc_auc, at_least: 0.75}", "{metric: 'no.such:metric', higher_is_better: true}")
    assert lint(capsys)[0] == 0


def test_a_folder_is_searched_for_pipelines_only(dags, capsys):
    (dags / "compose.yaml").write_text("services: {}\n")
    (dags / "_mlops.yaml").write_text("owner: me\n")
    for hidden in (".venv", "node_modules"):
        (dags / hidden).mkdir()
        (dags / hidden / "bad.yaml").write_text("mlops: 7\n")
    (dags / "team").mkdir()
    (dags / "team" / "bad.yaml").write_text("mlops: 7\n")
    code, lines, summary = lint(capsys, ".")
    assert (code, summary) == (1, "2 pipelines, 4 errors, 0 warnings")
    assert all(line.startswith("team/bad.yaml:1: ") for line in lines)


def test_a_yaml_file_with_a_stub_is_a_pipeline_even_when_it_says_nothing(dags, capsys):
    (dags / "empty.yaml").write_text("")
    (dags / "empty.py").write_text(stub("empty"))
    assert lint(capsys, ".")[1] == [
        "empty.yaml:1: expected a map (key: value lines) at the top, got nothing. `mlops init` writes a file to start from."
    ]


def test_the_defaults_are_checked_through_the_pipelines_that_they_are_for(dags, capsys):
    (dags / "_mlops.yaml").write_text("mod: x\n")
    assert lint(capsys, "_mlops.yaml")[1] == ["_mlops.yaml:1: mod: unknown key. Did you mean 'mode'?"]


def test_two_pipelines_of_one_name_are_an_error(dags, capsys):
    (dags / "other.yaml").write_text("name: rain\n" + PIPELINE)
    (dags / "other.py").write_text(stub("other"))
    assert lint(capsys, ".")[1] == ["rain.yaml:1: name: 'rain' is the name of other.yaml already; DAG ids must differ."]


def test_a_script_that_is_a_link_out_of_the_dag_folder_is_a_warning_with_its_real_path(dags, capsys, tmp_path_factory):
    real = tmp_path_factory.mktemp("elsewhere").resolve() / "train.py"
    Path("train.py").rename(real)
    Path("train.py").symlink_to(real)
    code, lines, summary = lint(capsys, ".")
    assert (code, summary) == (0, "1 pipeline, 0 errors, 1 warning")
    assert f"train.script: warning: 'train.py' is a link to {real}, outside of the DAG folder" in lines[0]


def test_a_link_within_the_dag_folder_is_none_of_lints_business(dags, capsys):
    Path("versions").mkdir()
    Path("train.py").rename("versions/train.py")
    Path("train.py").symlink_to("versions/train.py")
    assert lint(capsys, ".")[1] == []


def test_a_folder_without_pipelines_says_so(dags, capsys):
    (dags / "empty").mkdir()
    assert lint(capsys, "empty") == (
        0,
        ["empty: no pipeline file is in here: no .yaml with the key mlops."],
        "0 pipelines, 0 errors, 0 warnings",
    )


def test_a_stub_stands_for_its_pipeline_and_other_files_are_no_pipelines(dags, capsys):
    change("rain.yaml", "0.75", "7.5")
    assert lint(capsys, "rain.py") == lint(capsys, "rain.yaml")
    assert main(["lint", "train.py"]) == 2
    assert capsys.readouterr().err == (
        "mlops: error: train.py: is no YAML file. Name a pipeline file, or a folder that holds some.\n"
    )


def test_a_path_that_is_not_there_is_an_error_of_the_call(dags, capsys):
    assert main(["lint", "rian.yaml"]) == 2
    assert capsys.readouterr().err == (
        "mlops: error: rian.yaml: there is no such file or folder. Did you mean 'rain.yaml' or 'rain.py'?\n"
    )
