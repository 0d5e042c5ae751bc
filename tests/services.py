"""Real services that the tests start for themselves, as fixtures. A service that cannot start fails the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def _postgres_folder() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        pytest.fail("PostgreSQL is not installed: initdb is neither on the PATH nor below /usr/lib/postgresql.")
    return found[-1].parent if found else Path(on_path).parent


@contextlib.contextmanager
def postgres_server():
    """Run a private PostgreSQL server on a Unix socket; give its URL, with ``{database}`` for a database's name."""
    binaries = _postgres_folder()
    root = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path may have 107 bytes
    user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(root, **user)
    data = root / "data"

    def run(name, *arguments):
        command = [str(binaries / name), *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **user,
        )
        assert done.returncode == 0, done.stdout

    run("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync", "--locale=C")
    settings = f"-c listen_addresses='' -c unix_socket_directories={root} -c fsync=off -c max_connections=120"
    # Output goes to the log file: a server that inherits our pipe would keep it open.
    run("pg_ctl", "-D", data, "-w", "-l", root / "log", "-o", settings, "start")
    try:
        yield f"postgresql+psycopg://postgres@/{{database}}?host={root}"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres():
    """URL of a PostgreSQL server; ``{database}`` is to be formatted with a database's name."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def postgres_database(postgres):
    """URL of an empty database of that server."""
    import uuid

    import sqlalchemy as sa

    name = f"test_{uuid.uuid4().hex}"
    engine = sa.create_engine(postgres.format(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return postgres.format(database=name)
