"""`mlops demo` as its reader runs it, and what it does to the machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess

import pytest
from e2e.processes import Command, Watch, mlops
from e2e.world import eventually

from airflow_provider_mlops.cli.stack import AirflowClient

MOMENTS = 180  # seconds for what takes a few on an idle machine


def demo(folder, *words):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "MLFLOW"))}
    return Command(mlops("demo", "--folder", folder, *words), folder, cwd=folder.parent, environment=environment)


def check_summary(folder):
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["ok"] is True
    a, b, c, d, e = summary["acts"]
    assert [act["act"] for act in summary["acts"]] == list("abcde")
    assert all(act["came_true"] and act["seconds"] > 0 and act["title"] for act in summary["acts"])
    assert (a["verdict"], a["reason"], a["version"], a["champion"]) == ("passed", "holds", "1", "1")
    assert 0 <= a["prediction"] <= 1
    assert a["prediction_after_seconds"] < 180
    assert len(b["windows"]) >= 3
    assert {(window["verdict"], window["reason"]) for window in b["windows"]} == {("no_drift", "steady")}
    assert b["champion"] == "1"
    assert (c["verdict"], c["decision"], c["gate"]) == ("drift", "train", "passed")
    assert c["columns"]
    assert (c["champion_before"], c["champion_after"]) == ("1", "2")
    assert c["failures"] == 0
    assert c["answers"]["1"] > 0
    assert c["answers"]["2"] > 0
    assert d["verdict"] == "bad_data"
    assert d["reason"]
    assert set(d["columns"]) >= {"temperature", "dew point"}
    assert (d["decision"], d["trainings"], d["champion"]) == ("blocked", 0, "2")
    assert (e["verdict"], e["champion_before"], e["champion_after"]) == ("refused", "2", "2")
    assert e["reason"]
    return summary


def secrets_of(folder):
    """What Airflow made up at its start and must keep for itself."""
    configuration = (folder / "airflow" / "airflow.cfg").read_text()
    found = re.findall(r"^(?:fernet_key|jwt_secret|secret_key) *= *(\S{12,})$", configuration, re.MULTILINE)
    assert found
    password = json.loads((folder / "airflow" / "simple_auth_manager_passwords.json.generated").read_text())["admin"]
    return [*found, password]


def logs_of(folder):
    return [file for file in folder.rglob("*") if file.is_file() and (file.suffix == ".log" or file.name == "log")]


def test_it_tells_all_acts_within_the_time_and_memory_it_has_and_stays_up_until_ctrl_c(tmp_path):
    folder = tmp_path / "stay"
    with demo(folder) as command, Watch(command.family) as watch:
        command.wait_for("Ctrl-C stops everything.", within=480)
        summary = check_summary(folder)
        print(f"demo: {summary['seconds']} s, {watch.peak / 2**30:.2f} GiB")
        assert summary["seconds"] < 480
        assert 2**28 < watch.peak < 4 * 2**30
        assert len(watch.listeners) >= 4  # Airflow, MLflow, the router, a model server
        assert watch.public == {}
        told = command.text

        curl = next(line.strip() for line in told.splitlines() if line.strip().startswith("curl "))
        answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=60, check=True)
        chances = json.loads(answer.stdout)["predictions"][0]
        assert sum(chances) == pytest.approx(1)

        url, user, password = re.search(r"Airflow +(\S+) +user (\S+), password (\S+)", told).groups()
        with contextlib.closing(AirflowClient(url, user, password)) as airflow:
            assert airflow.get("dags")["total_entries"] == 2

        shown = next(line.split(maxsplit=1)[1] for line in told.splitlines() if " mlops journal show " in line)
        journal = subprocess.run(mlops(*shown.split()[1:]), capture_output=True, text=True, timeout=60, check=True)
        assert "quarantined" in journal.stdout

        for secret in secrets_of(folder):
            assert [file for file in logs_of(folder) if secret.encode() in file.read_bytes()] == []
        assert folder.stat().st_mode & 0o077 == 0

        command.interrupt()
        assert command.wait(within=MOMENTS) == 0, command.text[-3000:]
        assert command.family.gone() == []


def test_ctrl_c_during_the_start_and_a_second_demo_in_the_same_folder(tmp_path):
    folder = tmp_path / "early"
    with demo(folder) as command:
        command.wait_for("Starting MLflow and Airflow", within=MOMENTS)
        eventually((folder / "servers" / "mlflow" / "log").exists, MOMENTS, "MLflow was not started")
        second = subprocess.run(mlops("demo", "--folder", folder), capture_output=True, text=True, timeout=MOMENTS)
        assert second.returncode == 2
        assert f"Another demo runs in {folder}" in second.stderr
        stopped(command, signal.SIGINT)


def test_it_ends_its_tasks_when_it_is_terminated(tmp_path):
    folder = tmp_path / "terminated"
    with demo(folder) as command:
        command.wait_for("training.decide", within=480)
        eventually(lambda: [*(folder / "mlops" / "jobs").glob("*-training-train-*/log")], MOMENTS, "nothing is trained")
        stopped(command, signal.SIGTERM)


def test_kill_9_ends_all_of_it_and_the_next_demo_starts_in_the_same_folder(tmp_path):
    folder = tmp_path / "killed"
    servers = folder / "servers"
    with demo(folder) as command:
        eventually((servers / "scheduler" / "log").exists, MOMENTS, "the scheduler was not started")
        (left := servers / "scheduler" / "of the first").touch()
        assert len(command.family.members()) > 4
        command.process.kill()
        command.process.wait()
        with demo(folder) as second:  # at once, while the servers of the first may still end
            second.wait_for("Starting MLflow and Airflow", within=MOMENTS)
            eventually(
                lambda: (servers / "mlflow" / "log").exists() and not left.exists(), MOMENTS, "not started again"
            )
            stopped(second, signal.SIGINT)
        assert command.family.gone() == []


def stopped(command, number):
    command.interrupt(number)
    assert command.wait(within=MOMENTS) == 130
    assert command.family.gone() == []
    assert "Traceback" not in command.text
