"""
Every command of the command line: what it is called, what it takes, and which function answers.

A new command is one entry here and one module with ``run(arguments) -> exit code``. Both faces, ``mlops`` and
``airflow mlops``, are made from this table. It imports nothing, because each call of ``airflow`` reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["COMMANDS", "Argument", "Command", "argument"]

_HERE = "airflow_provider_mlops.cli"


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument as `argparse.ArgumentParser.add_argument` takes it."""

    flags: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """
    A command, or a group of commands.

    :param function: ``module:function`` that gets the parsed arguments and returns the exit code; empty for a group.
    :param commands: the commands of a group.
    """

    name: str
    help: str
    function: str = ""
    arguments: tuple[Argument, ...] = ()
    commands: tuple[Command, ...] = field(default=())


def argument(*flags: str, **options: Any) -> Argument:
    """Return an `Argument`."""
    return Argument(flags, options)


_ROOT = argument(
    "--root",
    metavar="FOLDER",
    help="the DAG folder: _mlops.yaml is looked for up to here, and scripts must lie below (default: five levels up)",
)
_URL = argument(
    "--url",
    help="database of the journal, as SQLAlchemy writes it (default: what the Airflow configuration names)",
)
_MODEL = argument("model", help="name of the registered model")

COMMANDS: tuple[Command, ...] = (
    Command(
        "init",
        "write a pipeline file and its stub",
        f"{_HERE}.init:run",
        (
            argument("name", help="name of the pipeline: 1 to 60 of a-z, 0-9 and _"),
            argument("--data", required=True, metavar="PATH", help="file, folder, glob or URL of the data"),
            argument("--label", required=True, metavar="COLUMN", help="column to predict"),
            argument(
                "--script",
                required=True,
                metavar="FILE",
                help="Python file that trains the model, in FOLDER or below it",
            ),
            argument("--timestamp", metavar="COLUMN", help="column with the event time of a row"),
            argument(
                "--folder", default=".", metavar="FOLDER", help="where to write, inside the DAG folder (default: here)"
            ),
        ),
    ),
    Command(
        "lint",
        "check pipeline files, without a database or a network",
        f"{_HERE}.lint:run",
        (
            argument("paths", nargs="+", metavar="PATH", help="pipeline file, or a folder to search"),
            argument(
                "--target",
                help="entry of targets that is chosen where the files will run; warns of files without targets",
            ),
            _ROOT,
        ),
    ),
    Command(
        "render",
        "print the effective values of a pipeline and where each comes from",
        f"{_HERE}.render:run",
        (
            argument("file", help="pipeline file"),
            argument("--target", help="entry of targets to lay upon the file"),
            _ROOT,
        ),
    ),
    Command(
        "schema",
        "print the format of pipeline files",
        f"{_HERE}.schema:run",
        (
            argument(
                "--format",
                choices=("json", "markdown"),
                default="json",
                help="json: the JSON Schema, for editors (default); markdown: the reference page",
            ),
            argument("--output", metavar="FILE", help="write it to this file"),
        ),
    ),
    Command(
        "drift",
        "compare data with a reference, column by column; exits with 2 for an error",
        f"{_HERE}.drift:run",
        (
            argument(
                "reference",
                metavar="REFERENCE",
                help="data to compare with (file, folder, glob, URL), or a stored profile (.json)",
            ),
            argument("current", metavar="CURRENT", nargs="?", help="data to judge: Parquet, CSV or Arrow"),
            argument(
                "--served-by",
                nargs="+",
                action="extend",
                metavar="URL",
                help="judge what a deployed model was asked, in place of CURRENT: all its replicas, or its router",
            ),
            argument("--columns", nargs="+", action="extend", metavar="NAME", help="look at these columns only"),
            argument("--exclude", nargs="+", action="extend", metavar="NAME", help="do not look at these columns"),
            argument(
                "--segment",
                metavar="COLUMN",
                help="judge the rows of each of its 10 most frequent values apart as well, and all others together",
            ),
            argument(
                "--text-columns",
                nargs="*",
                action="extend",
                metavar="NAME",
                help="take these columns of REFERENCE, and no others, as text (length and kinds of characters)",
            ),
            argument("--time", "--timestamp", metavar="COLUMN", help="column with the event time of a row"),
            argument(
                "--window",
                metavar="LENGTH",
                help="judge the newest LENGTH (12h, 7d) of CURRENT, by how much such spans differ within REFERENCE",
            ),
            argument(
                "--trailing",
                metavar="LENGTH",
                help="compare the window also with the LENGTH of CURRENT just before it: finds sudden changes",
            ),
            argument(
                "--max-rows",
                type=int,
                metavar="N",
                help="of Parquet with more rows read about N, or as many as --ignore-shift-below takes",
            ),
            argument(
                "--ignore-shift-below",
                type=float,
                default=0.05,
                metavar="SHARE",
                help="smallest change that matters, 0..1 (default: 0.05)",
            ),
            argument(
                "--false-alarms-per-30-days",
                type=float,
                default=1.0,
                metavar="N",
                help="false alarms that one is willing to see (default: 1)",
            ),
            argument("--checks-per-day", type=float, default=1.0, metavar="N", help="how often one looks (default: 1)"),
            argument("--min-rows", type=int, default=50, metavar="N", help="fewer rows are no data (default: 50)"),
            argument("--json", action="store_true", help="print the report as JSON"),
            argument("--html", metavar="FILE", help="write the report as one HTML file"),
            argument("--save-profile", metavar="FILE", help="keep the profile of REFERENCE, to be given in its place"),
            argument("--fail-on-drift", action="store_true", help="exit with 1 on drift and on bad data"),
        ),
    ),
    Command(
        "try",
        "run a pipeline's training once, in this terminal, without a scheduler",
        f"{_HERE}.trial:run",
        (
            argument("file", help="pipeline file"),
            argument("--target", help="entry of targets to lay upon the file"),
            argument(
                "--set", action="append", metavar="KEY=VALUE", help="change a value: train.hyperparameters.depth=3"
            ),
            argument("--folder", default=".mlops-try", help="where all is kept (default: .mlops-try)"),
            argument("--verbose", action="store_true", help="show all that Airflow logs"),
        ),
    ),
    Command(
        "demo",
        "watch a model being trained, judged, served, watched and replaced, on fifty years of weather",
        f"{_HERE}.demo:run",
        (
            argument("--folder", default=".demo", help="where everything is kept (default: .demo)"),
            argument("--once", action="store_true", help="end by itself; exit with 1 unless all came out as told"),
        ),
    ),
    Command(
        "replay",
        "train a registered version again from its record and compare; exits with 1 when a metric differs",
        f"{_HERE}.replay:run",
        (
            _MODEL,
            argument("version", help="the version"),
            argument("--python", metavar="FILE", help="interpreter to use (default: the one that trained it)"),
            argument(
                "--tolerance",
                type=float,
                default=1e-6,
                metavar="SHARE",
                help="largest difference of a metric, relative to 1 or to its value (default: 1e-6)",
            ),
            argument("--ignore", nargs="+", action="extend", metavar="METRIC", help="do not compare these metrics"),
            argument("--run-timeout", default="24h", metavar="LENGTH", help="end the training then (default: 24h)"),
            argument("--mlflow-conn-id", default="mlflow_default", metavar="ID", help="default: mlflow_default"),
        ),
    ),
    Command(
        "clean",
        "say what in the storage folder is old and needed by nobody, and remove it",
        f"{_HERE}.clean:run",
        (
            argument("--older-than", default="30d", metavar="LENGTH", help="last used before that (default: 30d)"),
            argument("--yes", action="store_true", help="remove it; without this nothing is removed"),
            argument("--mlflow-conn-id", default="mlflow_default", metavar="ID", help="default: mlflow_default"),
        ),
    ),
    Command(
        "journal",
        "read, check and prepare the journal of decisions",
        commands=(
            Command(
                "show",
                "print the history of a model",
                f"{_HERE}.journal:show",
                (_MODEL, argument("--last", type=int, metavar="N", help="only the newest N entries"), _URL),
            ),
            Command(
                "why",
                "print why the model in use is in use, and who rejected a newer one",
                f"{_HERE}.journal:why",
                (_MODEL, argument("--alias", default="champion", help="alias to explain (default: champion)"), _URL),
            ),
            Command(
                "verify",
                "check that no entry was changed, removed or moved",
                f"{_HERE}.journal:check",
                (
                    argument("--against", metavar="FILE", help="a JSON export made earlier, to find a tail cut off"),
                    _URL,
                ),
            ),
            Command(
                "export",
                "print all entries: who did what, when and why, to be kept or checked elsewhere",
                f"{_HERE}.journal:export",
                (
                    argument("--model", metavar="NAME", help="only the entries of this registered model"),
                    argument("--format", choices=("json", "csv", "html"), default="json", help="default: json"),
                    argument("--output", metavar="FILE", help="write to this file, which must not exist yet"),
                    _URL,
                ),
            ),
            Command("migrate", "create or update the table of the journal", f"{_HERE}.journal:migrate", (_URL,)),
        ),
    ),
)
