"""What DVC tracks becomes a local copy under its md5; on a real repository with a real remote."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys

import pytest

from airflow_provider_mlops.adapters.dvc import DvcSource, fetch
from airflow_provider_mlops.errors import ConfigError, DataError

# -- what is asked for: without the library --


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"repo": "."}, "data.dvc: 'path' is missing"),
        ({"path": "x"}, "data.dvc: 'repo' is missing"),
        ({"repo": ".", "path": "x", "rve": "main"}, "'rve' is no key of it. Did you mean 'rev'"),
        ({"repo": ".", "path": 1}, "data.dvc.path: expected text, got 1"),
        ({"repo": ".", "path": "../x"}, "'../x' must be a path inside the repository"),
        ({"repo": ".", "path": "/etc/passwd"}, "'/etc/passwd' must be a path inside the repository"),
        ("repo", "expected a mapping with repo and path, got 'repo'"),
    ],
)
def test_a_source_that_makes_no_sense_is_refused(values, match):
    with pytest.raises(ConfigError) as caught:
        DvcSource.from_dict(values)
    assert match in str(caught.value)


def test_a_password_in_the_url_is_refused_and_not_shown():
    with pytest.raises(ConfigError, match="the URL holds a password") as caught:
        DvcSource.from_dict({"repo": "https://jo:s3cret@git.example.com/x", "path": "x"})
    assert "s3cret" not in str(caught.value)


def test_empty_keys_ask_for_nothing():
    assert DvcSource.from_dict({"repo": ".", "path": "x", "rev": "", "remote": None}) == DvcSource(".", "x")


def test_without_the_library_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "dvc", None)
    with pytest.raises(ConfigError, match=r"dvc is not installed\. Run: pip install 'airflow-provider-mlops\[dvc\]'"):
        fetch(DvcSource(".", "x"), tmp_path)


# -- with the library --

with_library = pytest.mark.filterwarnings("default")  # its own warnings are not ours to mend


class Repository:
    """A git repository whose data lies in a DVC remote beside it."""

    def __init__(self, folder):
        self.folder, self.remote = folder / "repo", folder / "remote"
        self.folder.mkdir()
        self.run("git", "init", "-q", "-b", "main")
        self.run("git", "config", "user.email", "jo@example.com")
        self.run("git", "config", "user.name", "Jo")
        self.dvc("init", "-q")
        self.dvc("config", "core.analytics", "false")
        self.dvc("remote", "add", "-d", "store", str(self.remote))

    def run(self, *command):
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def dvc(self, *arguments):
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def commit(self, files, *, message="data", push=True):
        """Track and push *files*; return the commit."""
        for name, text in files.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(text)
        for name in {name.split("/")[0] for name in files}:
            self.dvc("add", "-q", name)
        if push:
            self.dvc("push", "-q")
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)
        return self.run("git", "rev-parse", "HEAD")

    def forget_cache(self):
        """As on another machine: only the remote has the content."""
        shutil.rmtree(self.folder / ".dvc" / "cache", ignore_errors=True)


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


@with_library
def test_a_file_is_pulled_from_the_remote_at_its_revision(repository, tmp_path):
    first = repository.commit({"rows.csv": "a\n1\n"})
    second = repository.commit({"rows.csv": "a\n2\n"})
    repository.forget_cache()
    source = DvcSource(str(repository.folder), "rows.csv")
    newest = fetch(source, tmp_path / "copies")
    older = fetch(DvcSource(str(repository.folder), "rows.csv", rev=first), tmp_path / "copies")
    assert (newest.rev, older.rev) == (second, first)
    assert newest.md5 == hashlib.md5(b"a\n2\n").hexdigest()
    assert (newest.path.read_text(), older.path.read_text()) == ("a\n2\n", "a\n1\n")
    assert newest.path == tmp_path / "copies" / newest.md5 / "rows.csv"
    assert fetch(source, tmp_path / "copies") == newest
    assert not [path for path in (tmp_path / "copies").iterdir() if path.name.startswith(".")]


@with_library
def test_a_folder_is_pulled_whole(repository, tmp_path):
    repository.commit({"rows/a.csv": "a\n1\n", "rows/b.csv": "a\n2\n"})
    repository.forget_cache()
    pulled = fetch(DvcSource(str(repository.folder), "rows", remote="store"), tmp_path / "copies")
    assert pulled.md5.endswith(".dir")
    assert sorted(path.name for path in pulled.path.iterdir()) == ["a.csv", "b.csv"]


@with_library
def test_a_repository_by_url_is_cloned(repository, tmp_path):
    commit = repository.commit({"rows.csv": "a\n1\n"})
    pulled = fetch(DvcSource(f"file://{repository.folder}", "rows.csv"), tmp_path / "copies")
    assert pulled.rev == commit
    assert pulled.path.read_text() == "a\n1\n"


@with_library
def test_what_was_not_pushed_is_said_so(repository, tmp_path):
    repository.commit({"rows.csv": "a\n1\n"}, push=False)
    repository.forget_cache()
    with pytest.raises(DataError, match=r"lacks 'rows\.csv'(?s:.*)dvc push"):
        fetch(DvcSource(str(repository.folder), "rows.csv"), tmp_path / "copies")
    assert list((tmp_path / "copies").iterdir()) == []


@with_library
def test_a_remote_that_holds_something_else_is_noticed(repository, tmp_path):
    repository.commit({"rows.csv": "a\n1\n"})
    repository.forget_cache()
    for file in repository.remote.rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            file.write_text("a\n9\n")
    with pytest.raises(DataError):
        fetch(DvcSource(str(repository.folder), "rows.csv"), tmp_path / "copies")


@with_library
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rev": "nowhere"}, "has no revision 'nowhere'"),
        ({"path": "other.csv"}, "DVC tracks no 'other.csv'"),
        ({"remote": "elsewhere"}, "the remote of"),
    ],
)
def test_what_does_not_exist_is_named(repository, tmp_path, change, match):
    repository.commit({"rows.csv": "a\n1\n"})
    repository.forget_cache()
    values = {"repo": str(repository.folder), "path": "rows.csv", **change}
    with pytest.raises(ConfigError, match=match):
        fetch(DvcSource.from_dict(values), tmp_path / "copies")


@with_library
def test_a_folder_that_is_no_repository_is_named(repository, tmp_path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(ConfigError, match="is no DVC repository"):
        fetch(DvcSource(str(tmp_path / "plain"), "rows.csv"), tmp_path / "copies")
