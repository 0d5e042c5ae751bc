"""Which Python serves a model. uv is a script here that does what the test says."""

import importlib.metadata
import logging
import sys

import pytest

from airflow_provider_mlops.errors import ConfigError, ServiceError
from airflow_provider_mlops.serving.environment import interpreter, mismatches, package_path

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
NUMPY = importlib.metadata.version("numpy")


def model(folder, requirements="numpy\n", python=f"{HERE}.1"):
    folder.mkdir()
    if requirements is not None:
        (folder / "requirements.txt").write_text(requirements)
    if python is not None:
        (folder / "python_env.yaml").write_text(f"python: {python}\nbuild_dependencies:\n- pip\n")
    return folder


@pytest.fixture
def uv(tmp_path, monkeypatch):
    """Put a uv on PATH that makes empty environments and writes down how it was called."""
    calls = tmp_path / "calls"
    script = tmp_path / "bin" / "uv"
    script.parent.mkdir()
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {calls}\n'
        'if [ "$1" = venv ]; then mkdir -p "$5/bin" "$5/lib/python3/site-packages"; touch "$5/bin/python"; fi\n'
        f'if [ "$1" = pip ] && [ -e {tmp_path}/broken ]; then\n'
        "  echo 'error: no solution at https://bob:secret@index/simple' >&2; exit 1\nfi\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    return calls


@pytest.mark.parametrize(
    ("requirements", "python", "expected"),
    [
        ("numpy\n", f"{HERE}.9", []),
        (None, None, []),
        (f"numpy=={NUMPY}\n# a comment\n-r other.txt\n\n", None, []),
        ("numpy==0.9.0\n", None, [f"numpy 0.9.0, here {NUMPY}"]),
        ("no-such-thing[extra]==1.0; python_version > '3'\n", None, ["no-such-thing, here missing"]),
        ("", "2.7.18", [f"Python 2.7, here {HERE}"]),
    ],
)
def test_what_differs_is_named(tmp_path, requirements, python, expected):
    assert mismatches(model(tmp_path / "m", requirements, python)) == expected


def test_the_current_interpreter_is_used_with_one_warning(tmp_path, caplog):
    folder = model(tmp_path / "m", "numpy==0.9.0\nno-such-thing\n")
    with caplog.at_level(logging.WARNING):
        assert str(interpreter("current", folder, tmp_path / "cache")) == sys.executable
    assert caplog.messages == [
        f"Model m was made with other versions: numpy 0.9.0, here {NUMPY}; no-such-thing, here missing."
    ]


def test_an_environment_is_made_once_per_requirements(tmp_path, uv):
    first = interpreter("model", model(tmp_path / "a", "scikit-learn==1.5\n"), tmp_path / "cache")
    again = interpreter("model", model(tmp_path / "b", "scikit-learn==1.5\n"), tmp_path / "cache")
    other = interpreter("model", model(tmp_path / "c", "scikit-learn==1.6\n"), tmp_path / "cache")
    assert first == again != other
    calls = uv.read_text().splitlines()
    assert len(calls) == 4
    assert f"--python {HERE} " in calls[0]
    assert "mlflow>=3.4" in calls[1]
    package = first.parent.parent / "lib" / "python3" / "site-packages" / "airflow_provider_mlops"
    assert {"errors.py", "serving", "drift", "rollout", "data"} <= {path.name for path in package.iterdir()}


def test_an_environment_of_its_own_does_not_see_the_libraries_beside_this_package(tmp_path, uv):
    made = interpreter("model", model(tmp_path / "a"), tmp_path / "cache")
    assert package_path(made) == {}
    assert list(package_path(interpreter("current", tmp_path / "a", tmp_path / "cache"))) == ["PYTHONPATH"]


def test_mlflow_is_not_asked_for_twice(tmp_path, uv):
    interpreter("model", model(tmp_path / "a", "mlflow==3.4.0\n"), tmp_path / "cache")
    assert "mlflow>=3.4" not in uv.read_text()


def test_a_build_that_was_killed_is_made_anew(tmp_path, uv):
    folder = model(tmp_path / "a")
    made = interpreter("model", folder, tmp_path / "cache")
    (made.parent.parent / "complete").unlink()
    (made.parent.parent / "half").touch()
    assert interpreter("model", folder, tmp_path / "cache") == made
    assert not (made.parent.parent / "half").exists()
    assert len(uv.read_text().splitlines()) == 4


def test_what_uv_says_is_passed_on_without_passwords(tmp_path, uv):
    (tmp_path / "broken").touch()
    with pytest.raises(
        ServiceError, match=r"could not make the environment.*no solution at https://\*\*\*@index/simple"
    ):
        interpreter("model", model(tmp_path / "a"), tmp_path / "cache")


@pytest.mark.parametrize(
    ("policy", "requirements", "python", "message"),
    [
        ("conda", "", None, "'conda' is no way to choose a Python. Write 'current' or 'model'"),
        ("model", None, None, "has no requirements.txt"),
        ("model", "", "3.9.1", "was made with Python 3.9; the server needs 3.11 or later"),
    ],
)
def test_what_cannot_be_is_said(tmp_path, uv, policy, requirements, python, message):
    with pytest.raises(ConfigError, match=message):
        interpreter(policy, model(tmp_path / "m", requirements, python), tmp_path / "cache")


def test_without_uv_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="uv is needed: pip install uv"):
        interpreter("model", model(tmp_path / "m"), tmp_path / "cache")
