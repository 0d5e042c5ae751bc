"""`mlops try`: what a data scientist sees at the terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pyarrow.parquet as pq
import pytest
from e2e.processes import Family, mlops
from e2e.world import PIPELINE, SCRIPT, points


@pytest.fixture(scope="module")
def attempt(tmp_path_factory):
    """Runs `mlops try` on a small pipeline; returns exit code, output and what is left running."""
    folder = tmp_path_factory.mktemp("try")
    project = folder / "project"
    project.mkdir()
    pq.write_table(points(), project / "points.parquet")
    (project / "train.py").write_text(SCRIPT)
    (project / "small.yaml").write_text(PIPELINE + "deploy: {local: {}}\nschedule: '@daily'\n")

    def run(*words, interrupt_at=None):
        family = Family(folder)
        command = subprocess.Popen(
            mlops("try", "small.yaml", "--folder", folder / "trials", *words),
            cwd=project,
            env={**os.environ, **family.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output = ""
            for line in command.stdout:
                output += line
                if interrupt_at and interrupt_at in line:
                    os.killpg(command.pid, signal.SIGINT)  # as a terminal does
            command.stdout.close()
            code = command.wait()
            left = family.gone()
        finally:
            family.end()
        assert {path.name for path in project.iterdir()} == {"points.parquet", "small.yaml", "train.py"}
        return code, output, left

    return run


STEPS = [
    *("data.snapshot", "data.validate", "training.decide", "training.train", "training.evaluate"),
    *("release.register", "release.smoke_test", "release.promote"),
]


def test_a_trial_tells_each_step_and_what_the_script_says(attempt):
    code, output, left = attempt("--set", "train.hyperparameters.seconds=1")
    assert code == 0, output
    assert [line for line in output.splitlines() if line in STEPS] == STEPS
    assert len(re.findall(r"^    \d+\.\d s$", output, re.MULTILINE)) == len(STEPS)
    assert "    fitting for 1 s\n" in output
    assert re.search(r"^PASSED in \d+ s$", output, re.MULTILINE)
    for noise in ("[info", "DAG TEST", "Traceback", "Warning", "::group", "alembic", "serving"):
        assert noise not in output
    assert left == []


def test_a_refused_candidate_is_exit_code_1_with_the_reason(attempt):
    code, output, left = attempt("--set", "evaluate.0.at_least=0.99")
    assert code == 1
    assert re.search(r"^REFUSED in \d+ s$", output, re.MULTILINE)
    assert re.search(r"gate +below_absolute: .*at least 0\.99 is asked", output)
    assert "release.register" not in output
    assert left == []


def test_a_script_that_fails_is_told_with_its_own_words(attempt):
    code, output, left = attempt("--set", 'train.hyperparameters={"D": 1}')
    assert code == 1
    assert output.count("unexpected keyword argument 'D'") == 1
    assert output.count("Traceback") == 1
    assert "train.py ended as failed: It ended with exit code 1." in output
    assert "FAILED at training.train" in output
    assert left == []


def test_a_trial_that_breaks_off_before_any_step_is_exit_code_2(attempt):
    code, output, left = attempt("--set", 'steps={"after_train": {"operator": "no.such.Operator"}}')
    assert code == 2
    assert re.search(r"^The trial broke off after \d+ s\. Airflow's own log is .*small\.log\.$", output, re.MULTILINE)
    assert left == []


def test_ctrl_c_ends_the_script_too(attempt):
    code, output, left = attempt("--set", "train.hyperparameters.seconds=600", interrupt_at="fitting for 600 s")
    assert code == 130
    assert output.endswith("\nStopped.\n")
    assert "Traceback" not in output
    assert left == []


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("train", "--set 'train': write KEY=VALUE, for example train.hyperparameters.depth=3."),
        ("deploy.bake=1m", "a trial has no 'deploy'; it trains, judges and registers once."),
        ("evaluate.3.at_least=1", "evaluate is a list of 1; count in it from 0."),
        ("evaluate.0.at_leest=1", "evaluate[0].at_leest: unknown key. Did you mean 'at_least'"),
        ("train.seed.a=1", "train.seed holds no keys."),
    ],
)
def test_a_wrong_assignment_is_told_before_anything_runs(attempt, assignment, told):
    code, output, _ = attempt("--set", "train.seed=1", "--set", assignment)
    assert code == 2
    assert told in output
