"""`mlops journal`: a model's history, why its champion is its champion, and whether the record is whole."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_mlops.adapters.journal.sql import SqlJournal
from airflow_provider_mlops.cli.main import main
from airflow_provider_mlops.journal import Record, append_next, kinds, model_stream, payloads

START = datetime(2024, 1, 1, tzinfo=UTC)


def history():
    """Return what two trainings leave: the first is promoted, the second refused."""
    gate = {"sentence": "It is good.", "reason": "holds", "champion": None}
    for run, verdict in (("r1", "passed"), ("r2", "refused")):
        key = f"key-{run}"
        yield kinds.TRAINING_STARTED, payloads.training_started(key=key, run_id=run, data_digest="sha256:1")
        yield kinds.TRAINING_FINISHED, payloads.training_finished(key=key, run_id=run)
        yield kinds.GATE_DECIDED, payloads.gate_decided(verdict=verdict, digest="d", run_id=run, **gate)
        if verdict == "passed":
            yield kinds.MODEL_REGISTERED, payloads.model_registered(version="1", run_id=run, source="models:/m-1")
            yield (
                kinds.PROMOTION_DONE,
                payloads.promotion_done(alias="champion", version="1", previous=None, token=1, rollback=False),
            )


@pytest.fixture
def url(tmp_path):
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    journal = SqlJournal(url)
    for i, (kind, payload) in enumerate(history()):
        append_next(journal, model_stream("rain"), Record(kind, START + timedelta(hours=i), "rain__train", payload))
    return url


def mlops(capsys, *arguments):
    code = main(["journal", *arguments])
    return code, *capsys.readouterr()


def test_show_tells_a_line_per_entry(url, capsys):
    code, out, _ = mlops(capsys, "show", "rain", "--url", url)
    assert (code, len(out.splitlines())) == (0, 8)
    assert out.startswith("1. 2024-01-01 00:00:00 UTC, rain__train: training run r1 started on data sha256:1.\n")
    assert mlops(capsys, "show", "rain", "--last", "2", "--url", url)[1].splitlines() == out.splitlines()[-2:]


def test_why_tells_what_made_the_champion_and_nothing_of_the_others(url, capsys):
    code, out, _ = mlops(capsys, "why", "rain", "--url", url)
    assert code == 0
    assert [line.split(".")[0] for line in out.splitlines()] == ["2", "3", "4", "5"]
    assert "was judged against no champion: passed (holds). It is good." in out
    assert "r2" not in out


def test_why_tells_who_rejected_a_newer_version(url, capsys):
    journal, stream = SqlJournal(url), model_stream("rain")
    at = (START + timedelta(days=2)).isoformat()
    for version, who in (("1", "bob"), ("2", "ann")):
        payload = payloads.approval_answered(
            version=version,
            approved=who == "bob",
            chosen=["Approve" if who == "bob" else "Reject"],
            responded_by={"id": who, "name": who},
            at=at,
            gate_digest="d",
        )
        append_next(journal, stream, Record(kinds.APPROVAL_ANSWERED, START + timedelta(days=2), "rain__train", payload))
    code, out, _ = mlops(capsys, "why", "rain", "--url", url)
    assert code == 0
    assert f"the promotion of version 2 was rejected by ann (id ann) at {at}: Reject, on gate decision d." in out
    code, out, _ = mlops(capsys, "why", "rain", "--alias", "shadow", "--url", url)
    assert code == 1
    assert out.startswith("No version of 'rain' was ever made 'shadow'.")
    assert "rejected by ann" in out


def test_why_of_an_alias_that_was_never_set_is_a_finding(url, capsys):
    code, out, _ = mlops(capsys, "why", "rain", "--alias", "shadow", "--url", url)
    assert (code, out) == (
        1,
        "No version of 'rain' was ever made 'shadow'. `mlops journal show` tells the rest.\n",
    )


def test_an_unknown_model_is_named_with_its_neighbors(url, capsys):
    assert mlops(capsys, "show", "rian", "--url", url) == (
        2,
        "",
        f"mlops: error: Model 'rian' was not found. Did you mean 'rain'? The journal at {url} knows nothing of it.\n",
    )


def test_verify_finds_a_change(url, capsys, tmp_path):
    assert mlops(capsys, "verify", "--url", url)[:2] == (0, "8 entries of 1 model: intact.\n")
    with sqlite3.connect(tmp_path / "journal.db") as database:
        database.execute("DROP TRIGGER IF EXISTS mlops_journal_no_update")
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {name}")
        database.execute("UPDATE mlops_journal SET actor = 'somebody' WHERE sequence = 3")
    database.close()
    code, out, _ = mlops(capsys, "verify", "--url", url)
    assert code == 1
    assert out.splitlines()[0] == "model/rain: edited: The content of entry 3 does not fit its hash."


@pytest.mark.parametrize("command", [["show", "rain"], ["show", "rain", "--last", "6"], ["why", "rain"], ["export"]])
def test_who_reads_a_journal_that_was_changed_is_warned(url, capsys, tmp_path, command):
    assert mlops(capsys, *command, "--url", url)[2] == ""
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("UPDATE mlops_journal SET payload = replace(payload, 'good', 'bad') WHERE sequence = 3")
    code, out, err = mlops(capsys, *command, "--url", url)
    assert code == 0
    assert err == (
        "warning: model/rain was changed from outside: The content of entry 3 does not fit its hash. "
        "See `mlops journal verify`.\n"
    )
    assert "It is bad." in out


def test_verify_against_an_export_finds_a_cut_tail(url, capsys, tmp_path):
    export = tmp_path / "export.json"
    assert mlops(capsys, "export", "--output", str(export), "--url", url)[0] == 0
    other = f"sqlite:///{tmp_path / 'other.db'}"
    code, out, _ = mlops(capsys, "verify", "--against", str(export), "--url", other)
    assert code == 1
    assert out.startswith("model/rain: removed: The stream ends at entry 0, but entry 8 was seen before")


def test_export_prints_all_entries_and_never_overwrites(url, capsys, tmp_path):
    out = mlops(capsys, "export", "--url", url)[1]
    assert len(json.loads(out)["entries"]) == 8
    assert mlops(capsys, "export", "--format", "csv", "--url", url)[1].count("\n") == 9
    (tmp_path / "there").write_text("mine")
    code, _, err = mlops(capsys, "export", "--output", str(tmp_path / "there"), "--url", url)
    assert (code, err) == (2, f"mlops: error: {tmp_path}/there: File exists.\n")
    assert (tmp_path / "there").read_text() == "mine"


@pytest.mark.parametrize("form", ["json", "csv", "html"])
def test_an_export_of_one_model_tells_who_what_when_and_why_and_nothing_of_others(url, capsys, form):
    payload = payloads.training_finished(key="k", run_id="other-run")
    append_next(SqlJournal(url), model_stream("snow"), Record(kinds.TRAINING_FINISHED, START, "snow__train", payload))
    _, out, _ = mlops(capsys, "export", "--format", form, "--model", "rain", "--url", url)
    for told in ("rain__train", "2024-01-01", "promoted: champion is version 1", "passed (holds). It is good."):
        assert told in out
    assert "other-run" not in out
    assert mlops(capsys, "export", "--model", "rian", "--url", url)[2].startswith(
        "mlops: error: Model 'rian' was not found. Did you mean 'rain'?"
    )


def test_migrate_may_be_asked_twice(capsys, tmp_path):
    url = f"sqlite:///{tmp_path / 'new' / 'journal.db'}"
    for _ in range(2):
        code, out, _ = mlops(capsys, "migrate", "--url", url)
        assert code == 0
        assert out.endswith("is ready.\n")


def test_a_password_in_the_url_is_never_printed(capsys):
    code, out, err = mlops(capsys, "show", "rain", "--url", "postgresql+psycopg://me:hunter2@127.0.0.1:1/none")
    assert code == 2
    assert "hunter2" not in out + err
    assert err.startswith("mlops: error: ")
