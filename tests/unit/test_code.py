"""What is frozen with a script: the modules beside it that it imports, and nothing else."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from airflow_provider_mlops.adapters.code import freeze_script, read_code
from airflow_provider_mlops.errors import ConfigError

PACKAGE = {"pack/__init__": "", "pack/near": "from .far import one", "pack/far": "one = 1", "pack/deep/leaf": ""}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "dags"
    folder.mkdir()
    return folder


def write(folder, **files):
    for name, text in files.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.mark.parametrize(
    ("statement", "frozen"),
    [
        ("import json, pandas.nothing", []),
        ("import helpers", ["helpers.py"]),
        ("import helpers as h, other", ["helpers.py", "other.py"]),
        ("from helpers import a", ["helpers.py"]),
        ("def late():\n    from helpers import a", ["helpers.py"]),
        ("try:\n    import helpers\nexcept ImportError:\n    pass", ["helpers.py"]),
        ("import pack", ["pack/__init__.py"]),
        ("import pack.deep.leaf", ["pack/deep/leaf.py", "pack/__init__.py"]),
        ("from pack.deep import leaf", ["pack/deep/leaf.py", "pack/__init__.py"]),
        ("from pack import *", ["pack/__init__.py"]),
        ("from pack.near import one", ["pack/far.py", "pack/__init__.py", "pack/near.py"]),
        ("import importlib; importlib.import_module('helpers')", ["helpers.py"]),
        ("import ring_a", ["ring_a.py", "ring_b.py"]),
        ("import train", []),
        ("import nosuch; from . import nothing", []),
        ("this is no Python", []),
    ],
)
def test_the_modules_beside_a_script_that_it_imports_are_frozen(folder, tmp_path, statement, frozen):
    write(folder, helpers="a = 1", other="", ring_a="import ring_b", ring_b="import ring_a", unused="")
    write(folder, **PACKAGE)
    write(folder, train=statement)
    expected = sorted({"train.py", *frozen})
    assert sorted(read_code(folder / "train.py")) == expected
    copy = freeze_script(folder / "train.py", tmp_path / "storage")
    assert sorted(str(f.relative_to(copy.folder)) for f in copy.folder.rglob("*.py")) == expected


def test_the_digest_of_a_script_alone_is_that_of_its_bytes(folder, tmp_path):
    write(folder, train="x = 1\n")
    digest = freeze_script(folder / "train.py", tmp_path).digest
    assert digest == f"sha256:{hashlib.sha256(b'x = 1' + bytes([10])).hexdigest()}"


def test_the_digest_changes_with_what_is_imported_and_with_nothing_else(folder, tmp_path):
    def digest():
        return freeze_script(folder / "train.py", tmp_path / "storage").digest

    write(folder, train="import helpers", helpers="a = 1", unused="b = 1")
    first = digest()
    write(folder, unused="b = 2")
    assert digest() == first
    write(folder, helpers="a = 2")
    assert digest() != first
    write(folder, helpers="a = 1")
    assert digest() == first


def test_a_frozen_script_runs_without_what_it_was_copied_from(folder, tmp_path):
    write(folder, train="from pack.near import one\nprint(one)")
    write(folder, **PACKAGE)
    copy = freeze_script(folder / "train.py", tmp_path / "storage")
    folder.rename(tmp_path / "gone")
    done = subprocess.run([sys.executable, copy.folder / copy.name], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_a_changed_module_marks_the_commit(folder, tmp_path):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=folder, check=True)

    write(folder, train="import helpers", helpers="a = 1", unused="")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "all")
    clean = freeze_script(folder / "train.py", tmp_path).commit
    assert len(clean) == 40
    write(folder, unused="b = 2")
    assert freeze_script(folder / "train.py", tmp_path).commit == clean
    write(folder, helpers="a = 2")
    assert freeze_script(folder / "train.py", tmp_path).commit == f"{clean}+"


def test_a_script_that_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.py cannot be read: No such file or directory\. Check the path\."):
        freeze_script(folder / "train.py", tmp_path)
