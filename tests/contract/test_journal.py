"""What every journal must do. A new one joins by one line in JOURNALS."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from airflow_provider_mlops.adapters.journal.sql import SqlJournal
from airflow_provider_mlops.errors import ConfigError, ConflictError, DataError, ServiceError
from airflow_provider_mlops.journal import Head, Record, append_next, read_intact, verify
from airflow_provider_mlops.journal.record import GENESIS
from fakes.journal import MemoryJournal

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def memory(request):
    return MemoryJournal()


def sqlite(request):
    return SqlJournal(f"sqlite:///{request.getfixturevalue('tmp_path')}/journal.db")


def postgres(request):
    journal = SqlJournal(request.getfixturevalue("postgres_database"))
    journal.migrate()
    return journal


POSTGRES = pytest.param(postgres, id="postgres", marks=pytest.mark.service("postgres"))
SQL = [pytest.param(sqlite, id="sqlite"), POSTGRES]
JOURNALS = [pytest.param(memory, id="memory"), *SQL]


@pytest.fixture(params=JOURNALS)
def journal(request):
    return request.param(request)


@pytest.fixture(params=SQL)
def sql(request):
    return request.param(request)


def record(kind="drift.checked", at=NOW, actor="dag/run/task", **payload):
    return Record(kind, at, actor, payload)


def change(journal, statement, **values):
    with journal._engine.begin() as connection:
        connection.execute(sa.text(statement), values)


def test_what_is_read_is_what_was_appended(journal):
    written = [journal.append("model/churn", n, record(number=n, share=0.1 + n)) for n in range(3)]
    assert journal.read("model/churn") == written
    assert journal.read("model/churn", after=2) == written[2:]
    assert [entry.sequence for entry in written] == [1, 2, 3]
    assert written[0].previous_hash == GENESIS
    assert written[1].previous_hash == written[0].hash
    assert journal.last_sequence("model/churn") == 3


def test_an_unknown_stream_is_empty(journal):
    assert journal.read("model/none") == []
    assert journal.last_sequence("model/none") == 0
    assert journal.streams() == []


def test_streams_are_counted_apart(journal):
    journal.append("model/b", 0, record())
    journal.append("model/a", 0, record())
    journal.append("model/a", 1, record())
    assert journal.streams() == ["model/a", "model/b"]
    assert [len(journal.read(stream)) for stream in journal.streams()] == [2, 1]


def test_evidence_is_written_at_the_end_wherever_that_is(journal):
    assert journal.append("model/churn", None, record()).sequence == 1
    journal.append("model/churn", 1, record())
    assert journal.append("model/churn", None, record()).sequence == 3
    assert verify(journal.read("model/churn")) == []


@pytest.mark.parametrize("expected", [0, 2, 7])
def test_a_writer_who_decided_on_old_news_is_refused_and_nothing_is_written(journal, expected):
    journal.append("model/churn", 0, record())
    with pytest.raises(ConflictError, match="ends at entry 1"):
        journal.append("model/churn", expected, record())
    assert journal.last_sequence("model/churn") == 1


def test_times_come_back_aware_and_in_utc(journal):
    journal.append("s", 0, record(at=datetime(2026, 3, 1, 14, 30, 0, 7, tzinfo=timezone(timedelta(hours=2)))))
    at = journal.read("s")[0].record.at
    assert at == NOW.replace(microsecond=7)
    assert at.tzinfo is UTC


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"text": "quotes ' \" and \\ and \N{SNOWMAN} and \x00 and \ud800"},
        {"deep": {"list": [1, 2.5, None, True, {"a": []}]}},
        {"big": 2**80, "small": 1e-300, "negative zero": -0.0, "whole": 1.0},
    ],
    ids=["empty", "text", "deep", "numbers"],
)
def test_any_json_comes_back_as_it_was_and_fits_its_hash(journal, payload):
    journal.append("s", 0, record(**payload))
    assert journal.read("s")[0].record.payload == payload
    assert verify(journal.read("s")) == []


@pytest.mark.parametrize("stream", ['model/it\'s "quoted"', "model/../../etc", "model/ä b", "x' OR '1'='1", "m" * 500])
def test_hostile_stream_names_are_names(journal, stream):
    journal.append("other", 0, record())
    journal.append(stream, 0, record(a=1))
    assert stream in journal.streams()
    assert [entry.record.payload for entry in journal.read(stream)] == [{"a": 1}]


@pytest.mark.parametrize("stream", ["", "a\nb", "a\x00b", "m" * 501, "\ud800"])
def test_what_cannot_name_a_stream_is_refused(journal, stream):
    with pytest.raises(ConfigError, match="cannot be the stream of a journal record"):
        journal.append(stream, 0, record())
    assert journal.streams() == []


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), b"bytes", {1: 2}, datetime.now(UTC)])
def test_what_is_no_json_never_reaches_the_journal(journal, value):
    with pytest.raises(ConfigError, match=r"drift.checked: payload\.value"):
        journal.append("s", 0, record(value=value))
    assert journal.streams() == []


WRITER = """
import sys
from datetime import UTC, datetime
from airflow_provider_mlops.adapters.journal.sql import SqlJournal
from airflow_provider_mlops.journal import Record, append_next

for number in range(10):
    append_next(SqlJournal(sys.argv[1]), "model/raced", Record("k", datetime.now(UTC), "me", {"number": number}), 1000)
"""


def test_parallel_processes_lose_no_record_and_leave_one_chain(sql):
    url = sql._engine.url.render_as_string(hide_password=False)
    writers = [subprocess.Popen([sys.executable, "-W", "error", "-c", WRITER, url]) for _ in range(4)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0, 0]
    entries = sql.read("model/raced")
    assert [entry.sequence for entry in entries] == list(range(1, 41))
    assert verify(entries) == []


def in_a_fork(act):
    """Run *act* in a forked process and return its exit code: 0 when it came to its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_fork_and_its_parent_go_on_with_connections_of_their_own(sql):
    sql.append("s", 0, record())
    for _ in range(3):
        assert in_a_fork(lambda: append_next(sql, "s", record())) == 0
        append_next(sql, "s", record())
    assert verify(sql.read("s")) == []
    assert sql.last_sequence("s") == 7


def test_threads_share_one_journal(sql):
    sql.append("s", 0, record())
    threads = [
        threading.Thread(target=lambda: [append_next(sql, "s", record(), 1000) for _ in range(5)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify(sql.read("s")) == []
    assert sql.last_sequence("s") == 21


def test_what_was_appended_outlives_a_kill_of_its_writer(sql):
    def write_and_die():
        for number in range(5):
            sql.append("s", number, record(number=number))
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_fork(write_and_die) == -signal.SIGKILL
    assert [entry.record.payload["number"] for entry in sql.read("s")] == [0, 1, 2, 3, 4]
    assert sql.append("s", 5, record()).sequence == 6


def test_append_next_says_so_when_it_never_wins():
    class Busy(MemoryJournal):
        def append(self, stream, expected_sequence, record):
            raise ConflictError("Somebody else wrote first.")

    with pytest.raises(ConflictError, match=r"3 attempts to append 'drift\.checked' lost"):
        append_next(Busy(), "s", record(), attempts=3)


def test_migrating_twice_is_migrating_once(sql):
    sql.migrate()
    sql.append("s", 0, record())
    sql.migrate()
    assert sql.last_sequence("s") == 1
    with sql._engine.connect() as connection:
        assert sorted(sa.inspect(connection).get_table_names()) == ["mlops_alembic_version", "mlops_journal"]


@pytest.mark.service("postgres")
def test_a_database_without_the_table_says_what_to_run(postgres_database):
    journal = SqlJournal(postgres_database)
    for ask in (lambda: journal.read("s"), lambda: journal.append("s", 0, record()), journal.streams):
        with pytest.raises(ConfigError, match="Run `mlops journal migrate` once"):
            ask()


@pytest.mark.service("postgres")
def test_a_server_that_was_restarted_is_connected_to_anew(postgres_database):
    kept, other = SqlJournal(postgres_database), SqlJournal(postgres_database)
    kept.migrate()
    kept.append("s", 0, record())
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    with other._engine.connect() as connection:
        assert connection.execute(sa.text(end)).all() == [(True,)]
    kept.append("s", 1, record())
    assert verify(kept.read("s")) == []


def test_insert_and_select_are_rights_enough(postgres_database):
    owner = SqlJournal(postgres_database)
    owner.migrate()
    role = "writer_" + postgres_database.partition("test_")[2][:8]
    change(owner, f"CREATE ROLE {role} LOGIN")
    change(owner, f"GRANT INSERT, SELECT ON mlops_journal TO {role}")
    writer = SqlJournal(postgres_database.replace("postgres@", f"{role}@"))
    writer.append("s", 0, record())
    append_next(writer, "s", record())
    assert verify(writer.read("s")) == []
    with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        change(writer, "DELETE FROM mlops_journal")


def test_a_reader_creates_no_file(tmp_path):
    journal = SqlJournal(f"sqlite:///{tmp_path}/new/journal.db")
    assert journal.read("s") == []
    assert journal.streams() == []
    assert list(tmp_path.iterdir()) == []
    journal.append("s", 0, record())
    assert (tmp_path / "new" / "journal.db").exists()


def test_a_file_that_was_removed_is_empty_and_made_anew(tmp_path):
    journal = SqlJournal(f"sqlite:///{tmp_path}/journal.db")
    journal.append("s", 0, record())
    for file in tmp_path.iterdir():
        file.unlink()
    assert journal.read("s") == []
    assert list(tmp_path.iterdir()) == []
    assert journal.append("s", 0, record()).sequence == 1
    assert SqlJournal(f"sqlite:///{tmp_path}/journal.db").last_sequence("s") == 1


def test_a_sqlite_file_is_written_through_to_the_disk_and_kept_open(tmp_path):
    journal = SqlJournal(f"sqlite:///{tmp_path}/journal.db")
    journal.append("s", 0, record())
    with journal._connection() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    assert (tmp_path / "journal.db-wal").exists()  # the last close of the file would have removed it
    del journal, connection
    assert [file.name for file in tmp_path.iterdir()] == ["journal.db"]


def test_a_sqlite_file_of_something_else_is_joined(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/other.db")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE other (a int)"))
    engine.dispose()
    journal = SqlJournal(f"sqlite:///{tmp_path}/other.db")
    assert journal.read("s") == []
    assert journal.append("s", 0, record()).sequence == 1


def test_a_file_that_is_no_database_is_a_service_error_that_names_it(tmp_path):
    (tmp_path / "journal.db").write_text("this is not a database, it is a text of more than a hundred bytes " * 3)
    with pytest.raises(ServiceError, match=r"journal\.db.*file is not a database"):
        SqlJournal(f"sqlite:///{tmp_path}/journal.db").read("s")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/journal\.db' cannot be created"):
        SqlJournal(f"sqlite:///{tmp_path}/file/journal.db").append("s", 0, record())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "Could not parse"),
        ("oracle9://host/name", "oracle9"),
        ("postgresql://me@host:port/name", "port"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_a_url_that_cannot_be_a_journal_is_a_config_error(url, says):
    with pytest.raises(ConfigError, match=says):
        SqlJournal(url)


def test_a_url_as_airflow_writes_it_is_understood(tmp_path):
    journal = SqlJournal(f"sqlite://{quote(str(tmp_path / 'a b.db'), safe='')}")
    journal.append("s", 0, record())
    assert (tmp_path / "a b.db").exists()
    assert SqlJournal("postgres://me@db:5432/mlops?sslmode=require")._engine.dialect.driver == "psycopg"


def test_a_server_that_is_away_is_a_service_error_without_the_password():
    with pytest.raises(ServiceError) as caught:
        SqlJournal("postgresql+psycopg://me:secret@/db?host=/nowhere&sslpassword=secret").read("s")
    assert "secret" not in str(caught.value)


TAMPERINGS = [
    ("UPDATE mlops_journal SET payload = '{\"number\": 99}' WHERE sequence = 3", [(3, "edited")]),
    ("UPDATE mlops_journal SET payload = 'no json' WHERE sequence = 3", [(3, "edited")]),
    ("UPDATE mlops_journal SET kind = '' WHERE sequence = 3", [(3, "edited")]),
    ("UPDATE mlops_journal SET at = 'noon' WHERE sequence = 3", [(3, "edited")]),
    ("UPDATE mlops_journal SET actor = 'somebody else' WHERE sequence = 1", [(1, "edited")]),
    ("UPDATE mlops_journal SET hash = previous_hash WHERE sequence = 3", [(3, "edited"), (4, "replaced")]),
    ("DELETE FROM mlops_journal WHERE sequence = 3", [(3, "removed")]),
    ("DELETE FROM mlops_journal WHERE sequence < 3", [(1, "removed")]),
    ("UPDATE mlops_journal SET sequence = 9 WHERE sequence = 3", [(3, "removed"), (6, "removed"), (9, "reordered")]),
    ("UPDATE mlops_journal SET sequence = -1 WHERE sequence = 3", [(-1, "reordered"), (3, "removed")]),
    ("UPDATE mlops_journal SET sequence = -1 WHERE sequence = 5", [(-1, "reordered")]),
    ("UPDATE mlops_journal SET sequence = 0, actor = 'x' WHERE sequence = 5", [(0, "edited")]),
]


@pytest.mark.parametrize(("statement", "breaks"), TAMPERINGS)
def test_a_row_changed_by_hand_is_found_and_named(sql, statement, breaks):
    for number in range(5):
        sql.append("model/churn", number, record(number=number))
    change(sql, statement)
    assert [(fault.sequence, fault.code) for fault in verify(sql.read("model/churn"))] == breaks
    with pytest.raises(DataError, match="model/churn was changed from outside"):
        read_intact(sql, "model/churn")


HAND_EDITS = ["payload = '{\"number\": 1e999}'", "payload = '{\"number\": NaN}'", "payload = '[3]'", "payload = x'00'"]
HAND_EDITS += [
    "at = '0001-01-01T00:00:00+14:00'",
    "payload = payload || ' '",
    "previous_hash = x'00'",
    "hash = 7",
    "sequence = 'x'",
    "kind = x'00'",
]


@pytest.mark.parametrize("edit", HAND_EDITS)
def test_a_row_of_a_file_edited_into_anything_is_a_break_and_no_crash(tmp_path, edit):
    journal = SqlJournal(f"sqlite:///{tmp_path}/journal.db")
    for number in range(3):
        journal.append("s", number, record(number=number))
    change(journal, f"UPDATE mlops_journal SET {edit} WHERE sequence = 2")
    breaks = verify(journal.scan("s"))
    assert {fault.code for fault in breaks} <= {"edited", "removed", "replaced", "reordered"}
    assert 2 in {fault.sequence for fault in breaks}


LAST_ROWS = ["'abc'", "9223372036854775807", "x'00'", "9", "0.5"]


@pytest.mark.parametrize("sequence", LAST_ROWS)
def test_nothing_is_chained_to_a_last_row_of_a_file_that_is_at_no_place(tmp_path, sequence):
    journal = SqlJournal(f"sqlite:///{tmp_path}/journal.db")
    for number in range(3):
        journal.append("model/churn", number, record(number=number))
    change(journal, f"UPDATE mlops_journal SET sequence = {sequence} WHERE sequence = 3")
    if sequence == "0.5":  # before the others: the tail is cut
        change(journal, "DELETE FROM mlops_journal WHERE sequence IN (1, 2)")
    with pytest.raises(DataError, match="model/churn was changed from outside: its last row, at sequence"):
        append_next(journal, "model/churn", record())
    with pytest.raises(DataError, match="model/churn was changed from outside"):
        journal.append("model/churn", 3, record())
    if sequence.isdecimal():
        assert journal.last_sequence("model/churn") == int(sequence)
    else:
        with pytest.raises(DataError, match="model/churn was changed from outside"):
            journal.last_sequence("model/churn")
    assert verify(journal.scan("model/churn"))


@pytest.mark.parametrize("edit", ["actor = 'somebody else'", "hash = previous_hash", "payload = '{}'"])
def test_nothing_is_chained_to_a_last_row_that_was_edited(sql, edit):
    for number in range(3):
        sql.append("model/churn", number, record(number=number))
    change(sql, f"UPDATE mlops_journal SET {edit} WHERE sequence = 3")
    for expected in (3, None):
        with pytest.raises(DataError, match="its last row, at sequence 3, is not what was written"):
            sql.append("model/churn", expected, record())
    assert sql.last_sequence("model/churn") == 3


def test_a_row_whose_stream_is_none_any_more_is_found(tmp_path):
    journal = SqlJournal(f"sqlite:///{tmp_path}/journal.db")
    for number in range(3):
        journal.append("s", number, record(number=number))
    assert list(journal.scan(None)) == []
    change(journal, "UPDATE mlops_journal SET stream = x'73' WHERE sequence = 3")
    assert journal.streams() == ["s"]
    assert [(fault.stream, fault.sequence, fault.code) for fault in verify(journal.scan(None))] == [
        ("b's'", 1, "removed"),
        ("b's'", 3, "edited"),
    ]


def test_a_scan_gives_what_a_read_gives(sql):
    assert list(sql.scan("model/none")) == []
    for number in range(5):
        sql.append("model/churn", number, record(number=number))
    assert list(sql.scan("model/churn")) == sql.read("model/churn")


@pytest.mark.service("postgres")
def test_a_scan_of_a_database_without_the_table_says_what_to_run(postgres_database):
    with pytest.raises(ConfigError, match="Run `mlops journal migrate` once"):
        list(SqlJournal(postgres_database).scan("s"))


def test_two_rows_that_changed_places_are_both_named(sql):
    for number in range(5):
        sql.append("s", number, record(number=number))
    for before, after in ((2, 99), (4, 2), (99, 4)):
        change(sql, "UPDATE mlops_journal SET sequence = :after WHERE sequence = :before", before=before, after=after)
    breaks = [(fault.sequence, fault.code) for fault in verify(sql.read("s"))]
    assert (2, "reordered") in breaks
    assert (4, "reordered") in breaks


def test_a_cut_tail_is_found_with_a_head_noted_before_and_only_then(sql):
    entries = [sql.append("s", number, record(number=number)) for number in range(5)]
    head = Head(5, entries[-1].hash)
    change(sql, "DELETE FROM mlops_journal WHERE sequence > 3")
    assert verify(sql.read("s")) == []
    assert [(fault.sequence, fault.code) for fault in verify(sql.read("s"), {"s": head})] == [(4, "removed")]
    change(sql, "DELETE FROM mlops_journal")
    assert [(fault.sequence, fault.code) for fault in verify(sql.read("s"), {"s": head})] == [(1, "removed")]


def test_a_chain_that_was_recomputed_is_found_with_a_head_noted_before(sql):
    journal, forged = sql, MemoryJournal()
    noted = [journal.append("s", number, record(number=number)) for number in range(3)][-1]
    for number in range(3):
        forged.append("s", number, record(number=number * 2))
    assert verify(forged.read("s")) == []
    faults = verify(forged.read("s"), {"s": Head(3, noted.hash)})
    assert [(fault.sequence, fault.code) for fault in faults] == [(3, "replaced")]
