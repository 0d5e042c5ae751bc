"""`airflow mlops ...` is the same command line."""

import argparse

import pytest
from airflow.cli.cli_config import ActionCommand, GroupCommand

from airflow_provider_mlops.cli.airflow_commands import get_commands
from airflow_provider_mlops.cli.commands import COMMANDS


def tree(commands):
    return {c.name: tree(getattr(c, "subcommands", None) or getattr(c, "commands", ())) for c in commands}


def test_every_command_is_there_once():
    (group,) = get_commands()
    assert isinstance(group, GroupCommand)
    assert group.name == "mlops"
    assert tree(group.subcommands) == tree(COMMANDS)


def run(path, arguments):
    """Parse and run as Airflow does: from the table of its commands."""
    commands = get_commands()[0].subcommands
    for name in path:
        command = next(c for c in commands if c.name == name)
        commands = getattr(command, "subcommands", ())
    assert isinstance(command, ActionCommand)
    parser = argparse.ArgumentParser()
    for item in command.args:
        item.add_to_parser(parser)
    with pytest.raises(SystemExit) as caught:
        command.func(parser.parse_args(arguments))
    return caught.value.code


def test_a_command_ends_with_the_same_code_and_words(tmp_path, capsys):
    assert run(["schema"], []) == 0
    assert capsys.readouterr().out.startswith("{")
    assert run(["render"], [str(tmp_path / "no.yaml"), "--target", "prod"]) == 2
    assert capsys.readouterr().err == f"mlops: error: {tmp_path}/no.yaml: there is no such file.\n"


def test_a_group_of_commands_is_a_group(tmp_path, capsys):
    assert run(["journal", "verify"], ["--url", f"sqlite:///{tmp_path}/journal.db"]) == 1
    assert capsys.readouterr().out.startswith("There is no entry: nothing was verified.")


def test_a_connection_that_is_not_there_is_a_line_and_the_exit_code_2(monkeypatch, capsys):
    monkeypatch.setenv("AIRFLOW__MLOPS__JOURNAL_CONN_ID", "no_such_journal")
    assert run(["journal", "why"], ["rain"]) == 2
    assert capsys.readouterr().err == (
        "mlops: error: Connection 'no_such_journal' was not found. Add one of type Postgres or another SQL database in "
        "Airflow (Admin > Connections), or set AIRFLOW_CONN_NO_SUCH_JOURNAL in the environment.\n"
        "mlops: error: Outside of a task connections are looked for in the environment (AIRFLOW_CONN_...) and the "
        "secrets backend, not in Airflow's database.\n"
    )
