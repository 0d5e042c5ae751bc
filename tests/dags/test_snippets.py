"""Every snippet of README, docs/ and dags/ works as it stands there."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.file import might_contain_dag
from ruamel.yaml import YAML

from airflow_provider_mlops.cli.commands import COMMANDS
from airflow_provider_mlops.get_provider_info import get_provider_info
from airflow_provider_mlops.pipeline import load, target_names

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "dags" / "README.md", *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_MAKES_DAGS = re.compile(r"\bDAG\(|@dag\b|\bload_dags\(|\bcontinuous_training_dags\(")
_TRAIN = "import mlflow\n\nmlflow.sklearn.log_model(None, name='model')\n"


@dataclass(frozen=True)
class Snippet:
    page: Path
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}-{self.number}"


def snippets(*languages: str) -> list[Snippet]:
    found = []
    for page in PAGES:
        for number, match in enumerate(_FENCE.finditer(page.read_text()), start=1):
            if match[2] in languages:
                found.append(Snippet(page, number, match[2], match[3]))
    return found


def dag_files() -> list[Snippet]:
    files = [Snippet(path, 0, "python", path.read_text()) for path in sorted((ROOT / "dags").glob("*.py"))]
    return [snippet for snippet in [*files, *snippets("python")] if _MAKES_DAGS.search(snippet.text)]


PYTHON = snippets("python")
DAG_FILES = dag_files()
PIPELINES = [snippet for snippet in snippets("yaml") if re.search(r"^mlops: 1", snippet.text, re.MULTILINE)]


def parse(file: Path) -> DagBag:
    """The DAGs that Airflow finds in *file*; an import error fails the test."""
    bag = DagBag(dag_folder=str(file), collect_dags=True, safe_mode=True, bundle_name="testing")
    assert bag.import_errors == {}
    return bag


def test_there_are_snippets_of_every_kind():
    assert len(DAG_FILES) > 10
    assert len(PIPELINES) > 3
    assert len(snippets("bash")) > 5


@pytest.mark.parametrize("snippet", PYTHON, ids=str)
def test_python_compiles(snippet):
    compile(snippet.text, str(snippet), "exec")


@pytest.mark.parametrize("snippet", DAG_FILES, ids=str)
def test_a_file_with_dags_is_found_and_parsed_by_airflow(snippet, tmp_path):
    file = tmp_path / "rain.py"
    if "load_dags(" in snippet.text:
        file = tmp_path / (snippet.page.name if snippet.number == 0 else "rain.py")
        beside = snippet.page.with_suffix(".yaml") if snippet.number == 0 else ROOT / "dags" / "minimal.yaml"
        shutil.copy(beside, file.with_suffix(".yaml"))
    for script in re.findall(r"[\w/]+\.py", snippet.text):
        (tmp_path / Path(script).name).write_text(_TRAIN)
    file.write_text(snippet.text)
    assert might_contain_dag(str(file), safe_mode=True), "Airflow's safe mode would pass this file over in silence"
    assert parse(file).dags


@pytest.mark.parametrize("snippet", snippets("yaml"), ids=str)
def test_yaml_is_yaml(snippet):
    YAML(typ="safe").load(snippet.text)


@pytest.mark.parametrize("snippet", PIPELINES, ids=str)
def test_a_pipeline_file_makes_dags_for_every_target(snippet, tmp_path, monkeypatch):
    file = tmp_path / "rain.yaml"
    file.write_text(snippet.text)
    stub = file.with_suffix(".py")
    stub.write_text("from airflow_provider_mlops.factory import load_dags\n\nload_dags(__file__)  # -> DAGs\n")
    for target in ["", *target_names(file)]:
        monkeypatch.setenv("AIRFLOW__MLOPS__TARGET", target)
        bag = parse(stub)
        name = load(file, target=target or None).spec.name
        assert f"{name}__train" in bag.dags


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mlops", exit_on_error=False)
    parser.add_argument("--version", action="store_true")

    def add(parent, commands):
        choices = parent.add_subparsers(required=True)
        for command in commands:
            below = choices.add_parser(command.name, exit_on_error=False)
            if command.commands:
                add(below, command.commands)
            for item in command.arguments:
                below.add_argument(*item.flags, **item.options)

    add(parser, COMMANDS)
    return parser


def _commands(text: str) -> list[list[str]]:
    lines = text.replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in re.split(r"\s*(?:&&|\||;)\s*", line.split(" #")[0]) if part]
    return [shlex.split(part) for part in parts if part.split()[0] in {"mlops", "make"}] + [
        shlex.split(part)[1:] for part in parts if part.startswith("airflow mlops ")
    ]


@pytest.mark.parametrize("snippet", snippets("bash"), ids=str)
def test_a_command_exists_with_the_flags_that_are_shown(snippet, capsys):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command, *arguments in _commands(snippet.text):
        if command == "make":
            assert all(word in targets or "=" in word for word in arguments), arguments
            continue
        try:
            _parser().parse_args(arguments)
        except (argparse.ArgumentError, SystemExit) as error:
            pytest.fail(f"mlops {shlex.join(arguments)}: {error} {capsys.readouterr().err}")


def test_inline_commands_exist_too():
    known = {command.name: {below.name for below in command.commands} for command in COMMANDS}
    for page in PAGES:
        if page.parent.name == "reference":
            continue
        for words in re.findall(r"`mlops ([a-z]+)(?: ([a-z]+))?", page.read_text()):
            assert words[0] in known, f"{page.name}: mlops {words[0]}"
            if known[words[0]]:
                assert words[1] in known[words[0]], f"{page.name}: mlops {' '.join(words)}"


def test_every_command_is_in_the_table_of_commands():
    page = (ROOT / "docs" / "command-line.md").read_text()
    for command in COMMANDS:
        for below in command.commands or (None,):
            assert f"| `mlops {command.name}{f' {below.name}' if below else ''}` |" in page


def _surface() -> list[str]:
    """The names of every operator and sensor that Airflow is told of, and of every trigger that a person may name."""
    import importlib

    from airflow.triggers.base import BaseEventTrigger, BaseTrigger

    info = get_provider_info()
    modules = [name for kind in ("operators", "sensors", "triggers") for name in info[kind][0]["python-modules"]]
    names = []
    for module in map(importlib.import_module, modules):
        for name in module.__all__:
            found = getattr(module, name)
            inner = (
                isinstance(found, type) and issubclass(found, BaseTrigger) and not issubclass(found, BaseEventTrigger)
            )
            if name[0].isupper() and not inner:
                names.append(name)
    return names


@pytest.mark.parametrize("name", [*_surface(), "@task.train_model"])
def test_every_operator_has_a_how_to_with_an_example_that_is_parsed(name):
    pages = [snippet for snippet in DAG_FILES if "how-to" in str(snippet.page)]
    assert any(name in snippet.text for snippet in pages), f"{name} is used in no example of docs/how-to"


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "MLFLOW", "MLOPS"))
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


_MAKE_DATA = "from sklearn.datasets import load_breast_cancer; load_breast_cancer(as_frame=True).frame.to_parquet('{}')"


def test_the_smallest_pipeline_runs(tmp_path):
    for name in ("minimal.yaml", "minimal.py", "minimal_train.py"):
        shutil.copy(ROOT / "dags" / name, tmp_path)
    (tmp_path / "data").mkdir()
    assert _run([sys.executable, "-c", _MAKE_DATA.format("data/tumors.parquet")], tmp_path).returncode == 0
    mlops = [sys.executable, "-m", "airflow_provider_mlops.cli.main"]
    assert _run([*mlops, "lint", "."], tmp_path).stdout == "1 pipeline, 0 errors, 0 warnings\n"
    tried = _run([*mlops, "try", "minimal.yaml"], tmp_path)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert "PASSED" in tried.stdout
    # What the trial left is no DAG of the Airflow whose folder this is.
    assert (tmp_path / ".mlops-try" / ".airflowignore").read_text() == "*\n"


def test_the_quickstart_uses_the_data_that_the_smallest_pipeline_uses():
    for page in ("docs/quickstart.md", "dags/README.md"):
        assert _MAKE_DATA.split("; ", maxsplit=1)[0] in (ROOT / page).read_text()


def test_the_loop_that_a_person_writes_runs_as_it_stands(tmp_path):
    """The whole example of docs/how-to/README.md, by ``dag.test``, with the quickstart's script and data."""
    page = (ROOT / "docs" / "how-to" / "README.md").read_text()
    loop = next(match[3] for match in _FENCE.finditer(page) if _MAKES_DAGS.search(match[3]))
    quickstart = (ROOT / "docs" / "quickstart.md").read_text()
    train = next(match[3] for match in _FENCE.finditer(quickstart) if match[2] == "python" and "log_model" in match[3])
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "train.py").write_text(train)
    assert _run([sys.executable, "-c", _MAKE_DATA.format("dags/tumors.parquet")], tmp_path).returncode == 0
    (dags / "loop.py").write_text(loop)
    (tmp_path / "run.py").write_text(
        "import runpy, sys\n"
        "dag = next(value for value in runpy.run_path('dags/loop.py').values() if type(value).__name__ == 'DAG')\n"
        "run = dag.test()\n"
        "print({task.task_id: str(task.state) for task in run.get_task_instances()})\n"
        "sys.exit(run.state != 'success')\n"
    )
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "MLFLOW", "MLOPS"))},
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps(
            {"conn_type": "mlflow", "host": f"sqlite:///{tmp_path / 'mlflow.db'}"}
        ),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    for command in ([sys.executable, "-m", "airflow", "db", "migrate"], [sys.executable, "run.py"]):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "'promote': 'success'" in done.stdout
