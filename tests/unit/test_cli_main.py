"""The command line as a whole: what it loads, what it says when something is wrong, and its two faces."""

import json
import subprocess
import sys

import pytest

from airflow_provider_mlops.cli.commands import COMMANDS
from airflow_provider_mlops.cli.main import main


def names(commands=COMMANDS, above=""):
    for command in commands:
        yield f"{above}{command.name}"
        yield from names(command.commands, f"{above}{command.name} ")


def functions(commands=COMMANDS):
    for command in commands:
        if command.function:
            yield command.function
        yield from functions(command.commands)


def test_start_up_loads_neither_airflow_nor_any_library():
    code = (
        "import sys\n"
        "from airflow_provider_mlops.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "libraries = {'airflow', 'pydantic', 'ruamel', 'numpy', 'pyarrow', 'mlflow', 'pandas', 'sqlalchemy', 'yaml'}\n"
        "print(sorted(libraries & set(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.strip() == "[]"
    assert "init" in run.stdout


@pytest.mark.parametrize("command", [["lint", "."], ["render", "rain.yaml"], ["schema"]])
def test_no_command_on_files_loads_airflow(tmp_path, command):
    (tmp_path / "rain.yaml").write_text(
        "mlops: 1\ndata: {path: x.csv, label: y}\ntrain: {script: t.py}\nevaluate: [{metric: mae}]\n"
    )
    (tmp_path / "x.csv").write_text("x,y\n1,2\n")
    code = (
        "import sys\n"
        "from airflow_provider_mlops.cli.main import main\n"
        f"main({command!r})\n"
        "print('airflow' in sys.modules or 'mlflow' in sys.modules, file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stderr.strip() == "False"


@pytest.mark.parametrize("path", list(functions()))
def test_every_function_of_the_table_is_there(path):
    module, _, name = path.partition(":")
    assert callable(getattr(__import__(module, fromlist=[name]), name))


@pytest.mark.parametrize("name", list(names()))
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*name.split(), "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: mlops {name}")


@pytest.mark.parametrize("arguments", [[], ["nope"], ["init"], ["render"], ["journal"], ["journal", "show"]])
def test_a_wrong_call_ends_with_2_and_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: mlops" in capsys.readouterr().err


def test_an_error_is_lines_on_stderr_and_no_traceback(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rain.yaml").write_text("mlops: 2\n")
    assert main(["render", "rain.yaml"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "mlops: error: rain.yaml:1: mlops: expected 1, got 2.",
        "mlops: error: rain.yaml:1: data: missing. Where the data is and what its columns mean.",
        "mlops: error: rain.yaml:1: train: missing. The training job.",
        "mlops: error: rain.yaml:1: evaluate: missing. Rules of the gate: every one must hold, or the candidate is refused.",
    ]


def test_a_file_that_cannot_be_written_is_an_error_in_words(tmp_path, capsys):
    assert main(["schema", "--output", str(tmp_path / "no" / "x.json")]) == 2
    assert capsys.readouterr().err == f"mlops: error: {tmp_path}/no/x.json: No such file or directory.\n"


def test_a_reader_that_goes_away_is_no_traceback():
    command = f"{sys.executable} -m airflow_provider_mlops.cli.main schema | head -1"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("{\n", "")


def test_schema_prints_or_writes_the_same(tmp_path, capsys):
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert main(["schema", "--output", str(tmp_path / "x.json")]) == 0
    assert (tmp_path / "x.json").read_text() == printed
    assert json.loads(printed)["$schema"].endswith("2020-12/schema")


def test_render_prints_the_effective_values_of_a_target(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rain.yaml").write_text(
        "mlops: 1\ndata: {path: x.csv, label: y}\ntrain: {script: t.py}\nevaluate: [{metric: mae}]\n"
        "targets: {prod: {mode: enforce}}\n"
    )
    assert main(["render", "rain.yaml", "--target", "prod"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mode:"))
    assert line.split("  # ")[1] == "rain.yaml:5 (target prod)"
