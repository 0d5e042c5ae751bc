"""
The specification that a user writes: one frozen model per section of a pipeline file.

Everything else about the format comes from here: the JSON Schema for editors, the reference page, the words of an
error. So every field carries a description with its unit, and a type that says which values are allowed. Pure: no file
is read.
"""

# No `from __future__ import annotations`: pydantic reads the annotations when the classes are made.
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from airflow_provider_mlops.data.values import parse_duration
from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.pipeline import checks
from airflow_provider_mlops.pipeline.problems import Problem, problems_error
from airflow_provider_mlops.pipeline.schedules import check_schedule

__all__ = [
    "ApproveSpec",
    "CanarySpec",
    "DataSpec",
    "DeploySpec",
    "DriftSpec",
    "LocalSpec",
    "MonitorSpec",
    "PipelineSpec",
    "PrepareSpec",
    "ProcessSpec",
    "PromoteSpec",
    "RetrainSpec",
    "RuleSpec",
    "RunsOn",
    "StepSpec",
    "TrainSpec",
    "ValidateSpec",
    "format_duration",
]

NAME_PATTERN = r"^[a-z0-9_]{1,60}$"
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def format_duration(value: timedelta) -> str:
    """
    Return *value*, whole seconds, in the words of a pipeline file: the inverse of `parse_duration`.

    >>> format_duration(timedelta(hours=36))
    '36h'
    """
    seconds = int(value.total_seconds())
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{seconds // size}{unit}"


def _parsed(parse: Callable[[str], Any]) -> BeforeValidator:
    """Validate text by *parse*; every other value is left to the type of the field."""
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def _hold_out(value: Any) -> Any:
    if isinstance(value, str):
        value = float(value[:-1]) / 100 if value.endswith("%") else parse_duration(value)
    if not isinstance(value, timedelta) and not (isinstance(value, float) and 0 < value < 1):
        raise ValueError("neither a duration nor a share")
    return value


def _date(text: str) -> datetime:
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _schedule(text: str) -> str:
    try:
        return check_schedule(text)
    except ConfigError as error:
        raise PydanticCustomError("mlops_value", "{message}", {"message": str(error)}) from None


def _form_of_hold_out(value: timedelta | float) -> str:
    return format_duration(value) if isinstance(value, timedelta) else f"{value * 100:.12g}%"


def _runs_on(value: Any) -> Any:
    return {"process": {}} if value == "process" else value


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise PydanticCustomError("mlops_value", "{message}", {"message": f"{twice[0]!r} is listed twice."})
    return values


def _variable(name: str) -> str:
    if problem := checks.variable_problem(name):
        raise PydanticCustomError("mlops_value", "{message}", {"message": problem})
    return name


_DURATION_PATTERN = "[1-9][0-9]{0,5}[smhd]"

Duration = Annotated[
    timedelta,
    _parsed(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": f"^{_DURATION_PATTERN}$", "title": "a duration (45s, 30m, 12h or 7d)"}
    ),
]
HoldOut = Annotated[
    timedelta | float,
    BeforeValidator(_hold_out),
    PlainSerializer(_form_of_hold_out, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^({_DURATION_PATTERN}|[0-9]+(\.[0-9]+)?%)$",
            "title": "a duration (14d) or a share (20%)",
        }
    ),
]
Date = Annotated[
    datetime,
    _parsed(_date),
    PlainSerializer(lambda value: value.isoformat(), return_type=str),
    WithJsonSchema({"type": "string", "title": "a date (2024-01-31) or a time (2024-01-31T06:00)"}),
]
Schedule = Annotated[
    str,
    _parsed(_schedule),
    Field(json_schema_extra={"title": 'a cron line ("0 6 * * MON") or a preset ("@daily")'}),
]
Text = Annotated[str, Field(min_length=1)]
Column = Annotated[str, Field(min_length=1, json_schema_extra={"title": "the name of a column"})]
Columns = Annotated[tuple[Column, ...], Field(strict=False), AfterValidator(_distinct)]
Variable = Annotated[
    str, AfterValidator(_variable), Field(json_schema_extra={"title": "the name of an environment variable"})
]
Script = Annotated[
    str,
    Field(pattern=r"^[^\x00\s]([^\x00\n]*)\.py$", json_schema_extra={"title": "the path of a Python file (train.py)"}),
]
Import = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$",
        json_schema_extra={"title": "an import path (acme.operators.MemoOperator)"},
    ),
]
Address = Annotated[
    str,
    Field(pattern=r"^https?://[^\s/]+/?$", json_schema_extra={"title": "the URL of a server (http://host:8100)"}),
]
Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Causes = Annotated[tuple[Literal["schedule", "drift", "new_data"], ...], Field(strict=False), AfterValidator(_distinct)]
StepName = Literal[
    "snapshot", "validate", "train", "evaluate", "register", "smoke_test", "approve", "promote", "deploy",
    "check", "decide",
    "before_snapshot", "before_validate", "before_train", "before_evaluate", "before_register", "before_smoke_test",
    "before_approve", "before_promote", "before_deploy", "before_check", "before_decide",
    "after_snapshot", "after_validate", "after_train", "after_evaluate", "after_register", "after_smoke_test",
    "after_approve", "after_promote", "after_deploy", "after_check", "after_decide",
]  # fmt: skip


class Section(BaseModel):
    """What all sections share: frozen, unknown keys refused, ``"5"`` is no number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True)


class DataSpec(Section):
    """The data: where it is, what its columns mean and which part of it trains and judges."""

    path: Text = Field(
        description="File, folder, glob or fsspec URL of Parquet, CSV or Arrow files. A relative path starts at the "
        "folder of the pipeline file."
    )
    label: Column = Field(description="Column that the model is to predict.")
    timestamp: Column | None = Field(None, description="Column with the event time of a row.")
    entity: Column | None = Field(
        None,
        description="Column whose rows belong together (a customer, a machine): never split between train and test. In "
        "a ranking: the query whose rows compete.",
    )
    columns: Columns | None = Field(
        None, description="Columns to read; all without it. Label, timestamp and entity are read in any case."
    )
    label_delay: Duration | None = Field(
        None,
        description="Rows younger than this have no final label: neither trained on nor judged. Needs `timestamp`.",
    )
    train_on: Duration | None = Field(
        None, description="Length of the span before `hold_out` that is trained on; all of it without the key. "
        "Needs `timestamp`."
    )  # fmt: skip
    hold_out: HoldOut = Field(
        0.2,
        json_schema_extra={"default": "20%"},
        description="What is never trained on and judges the candidate: a duration (needs `timestamp`) or a share of "
        "the rows. With `timestamp` the newest labeled rows; without, rows chosen by a hash of their values.",
    )


class PrepareSpec(Section):
    """A job that makes the data ready; its output is what is frozen."""

    script: Script = Field(description="Python file of the job, relative to the pipeline file.")
    hyperparameters: Mapping[str, JsonValue] = Field(
        {}, description="Values that the script reads as JSON from `MLOPS_HYPERPARAMETERS`."
    )
    run_timeout: Duration = Field(timedelta(hours=1), description="The job is stopped after this time.")


class ValidateSpec(Section):
    """
    The contract of the data, beside the one that comes from the champion's profile.

    A violation can never start a training.
    """

    if_invalid: Literal["fail", "warn", "skip"] = Field(
        "fail", description="`fail` the task, `warn` and go on, or `skip` the rest of the run."
    )
    null_share: dict[str, Share] = Field(
        {}, description="Largest share of missing values per column, 0..1: `{income: 0.05}`."
    )
    unique: Columns = Field((), description="Columns that together identify a row: no combination may occur twice.")
    ranges: dict[str, Annotated[tuple[Finite | None, Finite | None], Field(strict=False)]] = Field(
        {},
        description="Smallest and largest value per column, in the column's unit: `{age: [0, 120]}`; `null` leaves a "
        "side open.",
    )
    domains: dict[str, Annotated[tuple[str | int | bool, ...], Field(strict=False, min_length=1)]] = Field(
        {}, description="Allowed values per column: `{country: [NO, SE]}`."
    )
    min_rows: Count = Field(1, description="Fewest rows.")
    fresh_within: Duration | None = Field(
        None, description="Largest age of the newest row when it is checked. Needs `timestamp`."
    )


class ProcessSpec(Section):
    """A child process of the task, on the worker."""

    python: Text | None = Field(
        None,
        description="Python interpreter of the job (`/opt/venvs/fraud/bin/python`); the worker's without it. Without "
        "`deploy`, its models are smoke-tested in an environment made by uv from their own requirements.",
    )
    environment: Annotated[tuple[Variable, ...], Field(strict=False), AfterValidator(_distinct)] = Field(
        (),
        description="Names of variables of the worker that the job gets, with the values they have there "
        "(`[AWS_PROFILE, HTTPS_PROXY]`); one that the worker lacks is left out. Without it a job gets none but `PATH`, "
        "`HOME`, `LANG`, `TZ` and what this package tells it.",
    )


class RunsOn(Section):
    """Where a job runs: `process`, or a map with that key and its options."""

    process: ProcessSpec = Field(description="A child process of the task, on the worker.")

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Allow the short form too."""
        return {"anyOf": [{"const": "process", "type": "string"}, handler(core_schema)]}


class TrainSpec(Section):
    """The training job."""

    script: Script = Field(
        description="Python file that trains and logs one model to MLflow, relative to the pipeline file."
    )
    hyperparameters: Mapping[str, JsonValue] = Field(
        {}, description="Values that the script reads as JSON from `MLOPS_HYPERPARAMETERS`."
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed that the script reads from `MLOPS_SEED`.")
    runs_on: Annotated[RunsOn, BeforeValidator(_runs_on)] = Field(
        RunsOn(process=ProcessSpec()),
        description="Where the jobs run, prepare and evaluate too: `process`, or `{process: {python: PATH}}`.",
    )
    run_timeout: Duration = Field(timedelta(hours=1), description="The job is stopped after this time.")


class RuleSpec(Section):
    """One rule of the gate. Every limit that it names must hold; numbers are in the metric's own units."""

    metric: Text = Field(
        description="Name of a metric (`roc_auc`), of a fairness gap or a measurement, `importance_share`, or "
        "`package.module:function`."
    )
    at_least: Finite | None = Field(None, description="Smallest allowed value, in the metric's unit.")
    at_most: Finite | None = Field(None, description="Largest allowed value, in the metric's unit.")
    max_drop_vs_champion: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None,
        description="Non-inferiority: a loss of this size or more against the champion must be excluded, in the "
        "metric's unit. Without it the candidate must be shown to be better.",
    )
    min_gain_vs_champion: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="Superiority: a gain above this must be shown, in the metric's unit."
    )
    per: Column | None = Field(None, description="Column whose values are slices, each judged on its own.")
    min_rows: Count | None = Field(None, description="Rows that a slice needs to be judged. Needs `per`.")
    protected: bool = Field(
        False,
        description="Slices must be shown not to be worse; without it they veto only when shown worse. Needs `per`.",
    )
    unsafe_ignore_champion: bool = Field(False, description="Do not compare this rule with the champion.")
    higher_is_better: bool | None = Field(
        None, description="Direction of a metric that is given as `package.module:function`; not for the others."
    )
    column: Column | None = Field(
        None,
        description="Input of the model that must not drive it: `{metric: importance_share, column: zip_code, at_most: "
        "0.05}` allows it at most 5 % of the permutation importance.",
    )


class ApproveSpec(Section):
    """A person says yes before promotion. `mode: suggest` always asks; this section says whom and for how long."""

    assigned_users: Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(_distinct)] = Field(
        (),
        description="Airflow users who may answer, by the id that the auth manager gives them: the name with the "
        'simple one, a number in quotes (`["12"]`) with FAB. Everybody who may edit the DAG run without it.',
    )
    response_timeout: Duration = Field(timedelta(days=2), description="No answer after this time means no.")


class PromoteSpec(Section):
    """The champion alias moves to a candidate that has passed."""

    on_foreign_change: Literal["fail", "adopt", "restore"] = Field(
        "fail",
        description="When somebody moved the alias outside of the journal: `fail`, `adopt` (take it as it stands) or "
        "`restore` (set it back first; a candidate that was compared with the other version then loses, and the next "
        "one is compared with the restored one).",
    )


class LocalSpec(Section):
    """Model servers on this machine."""

    port: int | None = Field(
        None, ge=1024, le=65535, description="TCP port of the endpoint; a free one, kept from then on, without it."
    )
    model_environment: Literal["current", "model"] = Field(
        "current",
        description="`current`: serve in the Python environment of the worker; `model`: in one made from the model's "
        "own requirements.",
    )


class CanarySpec(Section):
    """A new version takes over step by step, compared with the stable one at every look."""

    weights_percent: Annotated[
        tuple[Annotated[int, Field(ge=1, le=99)], ...], Field(strict=False, min_length=1, max_length=20)
    ] = Field((10, 50), description="Share of requests that the new version gets at each step, rising, per cent.")
    min_requests_per_step: Count = Field(
        500, description="Requests that the new version must have answered before a step can pass."
    )
    step_timeout: Duration = Field(
        timedelta(minutes=30), description="A step that has not passed by then is inconclusive."
    )
    if_inconclusive: Literal["rollback", "hold", "promote"] = Field(
        "rollback",
        description="What an inconclusive step does: `rollback`, `hold` (keep comparing), `promote`.",
    )
    max_error_rate: Annotated[float, Field(gt=0, le=0.25)] = Field(
        0.02, description="Share of failed answers (5xx), 0..0.25, that a healthy version stays below."
    )
    max_prediction_shift: Annotated[float, Field(gt=0, le=1)] = Field(
        0.2,
        description="How much further apart than on the evaluation rows, 0..1, the predictions of the two versions may "
        "be: the largest gap between two distributions, or the share of answers of another class. `1` accepts any.",
    )


class DeploySpec(Section):
    """Where the promoted model serves and how it takes over."""

    local: LocalSpec = Field(description="Serve on this machine: `{}` for the defaults. LocalExecutor only.")
    canary: CanarySpec | None = Field(
        None, description="Take over step by step; without it all traffic moves at once when the new version is ready."
    )
    bake: Duration = Field(
        timedelta(minutes=5),
        description="After the full switch the version is watched, ready to roll back, for this time.",
    )


class DriftSpec(Section):
    """When a shift of the data counts as drift."""

    ignore_shift_below: Share = Field(
        0.05,
        description="Shifts smaller than this are no drift however certain, 0..1: the largest gap between two "
        "distributions.",
    )
    false_alarms_per_30_days: Annotated[float, Field(gt=0, le=30)] = Field(
        1.0, description="False alarms that one is willing to see in 30 days."
    )
    min_rows: Count = Field(50, description="Rows that a window needs to be judged.")
    trailing: Duration | None = Field(
        None,
        description="Compare the window also with the time of this length just before it: finds sudden changes, and "
        "tells them from gradual ones. Needs `timestamp`.",
    )
    max_rows: Count | None = Field(
        None,
        description="Of Parquet files with more rows only about so many are read, spread over files and time; at least "
        "as many as `ignore_shift_below` takes.",
    )
    served_by: Annotated[tuple[Address, ...], Field(strict=False, min_length=1), AfterValidator(_distinct)] | None = (
        Field(
            None,
            description="Watch what the deployed model is asked instead of the data at `path`: the addresses of all "
            "its replicas, or of its router (`[http://127.0.0.1:8100]`). They count since they started.",
        )
    )
    columns: Columns | None = Field(None, description="Watch these columns only.")
    exclude: Columns = Field((), description="Do not watch these columns.")
    segment: Column | None = Field(
        None,
        description="Judge the rows of each of the 10 most frequent values of this column apart as well, and all "
        "others together: a change in one country is seen, and named. Takes effect with the next training.",
    )
    text_columns: Columns | None = Field(
        None,
        description="Columns that hold text, to be compared by length and kinds of characters; all other strings are "
        "categories. Without the key their values decide: text is what holds words and is hardly ever the same twice. "
        "Takes effect with the next training.",
    )


class MonitorSpec(Section):
    """A second DAG that watches the data of the model in use."""

    schedule: Schedule | None = Field(
        None, description="When the data is checked: cron or preset, UTC; by hand only without it."
    )
    window: Duration | None = Field(
        None,
        description="Length of the newest span that is checked; 7d without the key. Needs `timestamp`; without one all "
        "rows are checked.",
    )
    drift: DriftSpec = Field(DriftSpec(), description="When a shift of the data counts as drift.")


class RetrainSpec(Section):
    """When a training starts by itself, and what keeps it from starting too often."""

    when: Causes = Field(
        ("schedule",),
        description="What may start a training: the `schedule`, `drift` found by the monitor, `new_data` at the path. "
        "A person may start one at any time.",
    )
    violating_windows: Count = Field(
        2, description="Windows with drift, the latest among them, that start a training ..."
    )
    of_last: Count = Field(3, description="... out of this many latest windows.")
    cooldown: Duration = Field(timedelta(days=3), description="Shortest time from the end of one training to the next.")
    max_runs_per_30_days: Count = Field(5, description="Most trainings in 30 days; 5 is what a weekly schedule takes.")
    breaker_after: Count = Field(
        3, description="After this many refused or failed candidates in a row only a person can start a training."
    )


class StepSpec(Section):
    """An operator of the user's own; all other keys are its arguments (templated as that operator does)."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    __pydantic_extra__: dict[str, JsonValue]

    operator: Import = Field(description="Import path of the operator. All other keys are its arguments.")

    @property
    def arguments(self) -> dict[str, JsonValue]:
        """The keyword arguments of the operator."""
        return dict(self.__pydantic_extra__)


class PipelineSpec(Section):
    """Continuous training of one model: one pipeline file, after defaults and target have been merged."""

    mlops: Annotated[int, Field(ge=1, le=1)] = Field(description="Version of this format: write `mlops: 1`.")
    name: Annotated[
        str, Field(pattern=NAME_PATTERN, json_schema_extra={"title": "1 to 60 of the characters a-z, 0-9 and _"})
    ] = Field(description="Name of the DAGs, the MLflow experiment and the model; by default the name of the file.")
    description: str | None = Field(None, description="One sentence for those who meet the DAGs in Airflow.")
    mode: Literal["observe", "suggest", "enforce"] = Field(
        "suggest",
        description="`observe`: train, judge and register; promote nothing. `suggest`: a person says yes before "
        "promotion. `enforce`: a candidate that passes is promoted.",
    )
    schedule: Schedule | None = Field(None, description="When a training is due: cron or preset, UTC.")
    start_date: Date = Field(
        datetime(2024, 1, 1, tzinfo=UTC), description="First date of the schedule, UTC. Missed runs are never made up."
    )
    owner: Text | None = Field(None, description="Owner of the DAGs.")
    tags: Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(_distinct)] = Field(
        (), description="Tags of the DAGs in Airflow."
    )
    mlflow_conn_id: Text = Field(
        "mlflow_default",
        description="Airflow connection of the MLflow server, for every step; also for a step of your own that takes "
        "`mlflow_conn_id`.",
    )
    data: DataSpec = Field(description="Where the data is and what its columns mean.")
    prepare: PrepareSpec | None = Field(None, description="A job that makes the data ready, before it is frozen.")
    validation: ValidateSpec = Field(ValidateSpec(), alias="validate", description="The contract of the data.")
    train: TrainSpec = Field(description="The training job.")
    evaluate: Annotated[tuple[RuleSpec, ...], Field(strict=False, min_length=1)] = Field(
        description="Rules of the gate: every one must hold, or the candidate is refused."
    )
    approve: ApproveSpec | None = Field(None, description="A person says yes before promotion.")
    promote: PromoteSpec = Field(PromoteSpec(), description="How the champion alias moves.")
    deploy: DeploySpec | None = Field(None, description="Where the promoted model serves; nowhere without it.")
    monitor: MonitorSpec | None = Field(None, description="A second DAG that watches the data; none without it.")
    retrain: RetrainSpec = Field(RetrainSpec(), description="When a training starts by itself.")
    trigger_form: Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(_distinct)] = Field(
        (),
        description="Keys that may be changed per run in Airflow's trigger form, as dotted paths: `data.path`, "
        "`data.train_on`, `train.seed`, `train.run_timeout`, `train.hyperparameters.NAME`, "
        "`prepare.run_timeout`, `prepare.hyperparameters.NAME`.",
    )
    steps: dict[StepName, StepSpec] = Field(
        {},
        description="Operators of your own: `STEP` replaces a step, `before_STEP` and `after_STEP` add one. Steps: "
        "snapshot, validate, train, evaluate, register, smoke_test, approve, promote, deploy; check in the monitor; "
        "decide in both DAGs.",
    )

    @model_validator(mode="after")
    def _sections_agree(self) -> "PipelineSpec":
        found: list[Problem] = checks.check(self)
        if found:
            raise problems_error(found)
        return self
