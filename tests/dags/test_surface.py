"""What Airflow sees of this package: what an import costs, the operators' shape, the provider's metadata."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
import textwrap
from importlib import resources

import jsonschema
import pytest
from airflow.models.connection import Connection
from airflow.providers_manager import ProvidersManager
from airflow.sdk import DAG, BaseHook, BaseOperator, BaseSensorOperator, conf
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import BaseTrigger

import airflow_provider_mlops
from airflow_provider_mlops.evaluation import GateDecision, GateVerdict, Reason, Rule, RuleOutcome
from airflow_provider_mlops.get_provider_info import get_provider_info
from airflow_provider_mlops.operators.base import MlopsOperator
from airflow_provider_mlops.operators.drift import CheckDataDriftOperator
from airflow_provider_mlops.operators.evaluation import EvaluateModelOperator
from airflow_provider_mlops.operators.training import TrainOperator

PACKAGE = airflow_provider_mlops.__name__
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(airflow_provider_mlops.__path__, f"{PACKAGE}.")
    if not module.name.endswith("__main__") and ".migrations." not in module.name
)
SURFACE_ROOMS = {
    "decorators", "factory", "get_provider_info", "hooks", "links", "operators", "plugin", "sensors", "triggers",
}  # fmt: skip
SURFACE = [
    name for name in MODULES if name.split(".")[1] in SURFACE_ROOMS or name.endswith("cli.airflow_commands")
]  # fmt: skip
HEAVY = ("mlflow", "pandas", "scipy", "sklearn", "great_expectations", "dvc", "kubernetes", "docker")


def classes(base, *rooms):
    found = {
        kind
        for name in SURFACE
        if name.split(".")[1] in rooms
        for kind in vars(importlib.import_module(name)).values()
        if isinstance(kind, type) and issubclass(kind, base) and kind.__module__ == name
    }
    return sorted(found, key=lambda kind: kind.__name__)


OPERATORS = classes(BaseOperator, "operators", "sensors", "decorators")
TRIGGERS = classes(BaseTrigger, "triggers")
named = pytest.mark.parametrize("operator", OPERATORS, ids=lambda kind: kind.__name__)


# What an import costs

FORKS = """
import importlib, json, os, sys, time, warnings
import airflow.sdk, airflow.triggers.base
from airflow.sdk import BaseHook, BaseOperator, BaseSensorOperator, DAG, SkipMixin, TaskGroup, chain, conf

for name in json.loads(sys.argv[1]):
    for _ in range(3):
        sys.stdout.flush()
        if os.fork() == 0:  # a process that has imported Airflow and nothing of ours
            before = time.process_time()
            importlib.import_module(name)
            seconds = time.process_time() - before
            print(json.dumps([name, seconds, sorted(module.partition(".")[0] for module in sys.modules)]))
            sys.stdout.flush()
            os._exit(0)
        _, status = os.wait()
        if status:
            sys.exit(f"{name} cannot be imported")
"""


@pytest.fixture(scope="module")
def imported():
    """
    By name of a surface module: CPU seconds of its import above Airflow's, and the packages that are loaded then.

    The least of three imports: what else the machine does, with its caches, only adds to them.
    """
    ended = subprocess.run(
        [sys.executable, "-c", FORKS, json.dumps(SURFACE)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    # The dearest first, so that the least one stays.
    return {name: (seconds, set(packages)) for name, seconds, packages in sorted(lines, key=lambda line: -line[1])}


def test_no_surface_module_loads_a_heavy_library(imported):
    assert sorted(imported) == SURFACE
    assert {name: loaded for name, (_, packages) in imported.items() if (loaded := packages & set(HEAVY))} == {}


def test_no_surface_module_costs_more_than_150_ms_over_airflow(imported):
    assert {name: seconds for name, (seconds, _) in imported.items() if seconds > 0.15} == {}


@pytest.mark.parametrize("name", MODULES)
def test_everything_in_all_is_there(name):
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert [each for each in exported if not hasattr(module, each)] == []
    assert len(set(exported)) == len(exported)


# The shape of operators


def own_parameters(kind):
    """The parameters that the class itself adds, the bases' left out."""
    function = kind.__dict__.get("__init__")
    signature = inspect.signature(function).parameters if function else {}
    return [p for p in signature.values() if p.name != "self" and p.kind is p.KEYWORD_ONLY]


def init_of(kind):
    source = textwrap.dedent(inspect.getsource(kind.__dict__["__init__"]))
    (function,) = ast.parse(source).body
    return function


def owned_by_airflow(base):
    """Every name that Airflow's own operators use: arguments, attributes, properties, methods."""
    arguments = {
        name for kind in base.__mro__ if "__init__" in vars(kind) for name in inspect.signature(kind).parameters
    }
    instance = base(task_id="any") if base is BaseOperator else base
    return (arguments | set(dir(base)) | set(dir(instance))) - {"kwargs", "self"}


def passed_on(kind):
    """Parameters that `__init__` hands to the base under the same name: defaults of Airflow's own arguments."""
    calls = [node for node in ast.walk(init_of(kind)) if isinstance(node, ast.Call)]
    (call,) = (call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "__init__")
    return {word.arg for word in call.keywords if isinstance(word.value, ast.Name) and word.arg == word.value.id}


def test_the_list_of_operators_is_not_empty():
    names = {kind.__name__ for kind in OPERATORS}
    assert {"TrainOperator", "EvaluateModelOperator", "DataDriftSensor", "_TrainModelDecoratedOperator"} <= names


@named
def test_no_parameter_shadows_what_airflow_owns(operator):
    base = BaseSensorOperator if issubclass(operator, BaseSensorOperator) else BaseOperator
    owned = owned_by_airflow(base)
    assert {"params", "resources", "queue", "pool", "label", "retries", "dag", "start_date"} <= owned
    own = {parameter.name for parameter in own_parameters(operator)}
    assert (own & owned) - passed_on(operator) == set()
    assert {field for field in operator.template_fields if field in owned} <= {"op_args", "op_kwargs"}


@named
def test_parameters_are_keywords_and_typed_and_documented(operator):
    function = operator.__dict__["__init__"]
    kinds = {p.kind for name, p in inspect.signature(function).parameters.items() if name != "self"}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    assert all(parameter.annotation is not parameter.empty for parameter in own_parameters(operator))
    if not operator.__name__.startswith("_") and operator is not MlopsOperator:
        undocumented = [p.name for p in own_parameters(operator) if f":param {p.name}:" not in (operator.__doc__ or "")]
        assert undocumented == []


# What a class does beside assigning, with the attribute that must be there when the DAG is parsed.
BESIDE_ASSIGNING = {"CheckDataDriftOperator": "outlets"}


@named
def test_the_constructor_only_assigns(operator):
    """A templated or mapped argument has no value yet when the constructor runs."""
    assigned, beside = {}, set()
    for statement in init_of(operator).body:
        if isinstance(statement, ast.Expr):
            assert isinstance(statement.value, (ast.Call, ast.Constant))
            if isinstance(statement.value, ast.Call):
                assert ast.unparse(statement.value.func) == "super().__init__"
        elif isinstance(statement, ast.If):
            beside |= {
                node.attr
                for node in ast.walk(statement)
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            }
        else:
            target, value = (
                (statement.target, statement.value)
                if isinstance(statement, ast.AnnAssign)
                else (statement.targets[0], statement.value)
            )
            assert isinstance(target, ast.Attribute)
            assert ast.unparse(target.value) == "self"
            assigned[target.attr] = ast.unparse(value)
    own = {parameter.name for parameter in own_parameters(operator)}
    kept = own - passed_on(operator) - {"python_callable", "op_args", "op_kwargs"}
    assert {name: assigned.get(name) for name in kept} == {name: name for name in kept}
    assert beside == ({BESIDE_ASSIGNING[operator.__name__]} if operator.__name__ in BESIDE_ASSIGNING else set())


@named
def test_template_fields_are_parameters_and_documented_as_templated(operator):
    inherited = {p.name for kind in operator.__mro__ if kind in OPERATORS for p in own_parameters(kind)}
    assert set(operator.template_fields) <= inherited
    doc = " ".join((operator.__doc__ or "").split())
    if operator.__name__.startswith("_"):
        return
    for parameter in own_parameters(operator):
        _, found, text = doc.partition(f":param {parameter.name}:")
        if found:
            is_marked = "(templated)" in text.partition(" :")[0]
            assert is_marked == (parameter.name in operator.template_fields), parameter.name


def arguments(operator, value="x"):
    required = [
        p.name for kind in operator.__mro__ if kind in OPERATORS for p in own_parameters(kind) if p.default is p.empty
    ]
    return dict.fromkeys(required, value)


PUBLIC = [kind for kind in OPERATORS if not kind.__name__.startswith("_") and kind is not MlopsOperator]


@pytest.mark.parametrize("operator", PUBLIC, ids=lambda kind: kind.__name__)
def test_an_operator_is_made_from_templates_serialized_and_read_again(operator):
    with DAG("any", schedule=None) as dag:
        operator(task_id="one", **arguments(operator, "{{ params.x }}"))
    written = DagSerialization.to_dict(dag)
    json.dumps(written)
    read = DagSerialization.from_dict(written)
    task = read.get_task("one")
    assert task.task_type == operator.__name__
    assert tuple(task.template_fields) == tuple(operator.template_fields)
    assert DagSerialization.to_dict(dag) == written


@pytest.mark.parametrize("operator", PUBLIC, ids=lambda kind: kind.__name__)
def test_every_operator_can_be_mapped_over_each_of_its_template_fields(operator):
    for field in operator.template_fields:
        with DAG("mapped", schedule=None) as dag:
            given = {name: value for name, value in arguments(operator).items() if name != field}
            mapped = operator.partial(task_id="many", **given).expand(**{field: ["a", "b"]})
        assert isinstance(mapped, MappedOperator)
        json.dumps(DagSerialization.to_dict(dag))
        one = mapped.unmap({field: "a"})
        assert isinstance(one, operator)
        assert getattr(one, field) == "a"
        assert one.task_id == "many"


def test_a_mapped_training_takes_the_rest_from_partial():
    with DAG("mapped", schedule=None):
        mapped = TrainOperator.partial(
            task_id="train", experiment="churn", script="/s.py", data_uri="/d", run_timeout="5m"
        ).expand_kwargs([{"seed": 1}, {"seed": 2, "hyperparameters": {"depth": 3}}])
    one = mapped.unmap({"seed": 2, "hyperparameters": {"depth": 3}})
    assert (one.experiment, one.run_timeout, one.seed, one.hyperparameters) == ("churn", "5m", 2, {"depth": 3})
    assert one.multiple_outputs is True


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda kind: kind.__name__)
def test_a_trigger_does_not_fire_within_15_seconds_unless_told_so(trigger):
    """Airflow 3.2 and 3.3 fail healthy tasks whose trigger fires within a few seconds."""
    assert inspect.signature(trigger).parameters["minimum_wait"].default >= 15


# The provider's metadata


def test_the_metadata_keeps_airflows_schema():
    schema = json.loads(resources.files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_the_metadata_names_every_module_of_its_kind_and_no_other():
    def listed(*kinds):
        return {module for kind in kinds for entry in get_provider_info()[kind] for module in entry["python-modules"]}

    public = {kind.__module__ for kind in PUBLIC if kind.__module__.split(".")[1] == "operators"}
    assert listed("operators") == public
    assert listed("sensors") == {kind.__module__ for kind in classes(BaseSensorOperator, "sensors")}
    assert listed("triggers") == {kind.__module__ for kind in TRIGGERS}
    assert listed("hooks") == {kind.__module__ for kind in classes(BaseHook, "hooks")}


def test_airflow_knows_the_provider():
    manager = ProvidersManager()
    provider = manager.providers["airflow-provider-mlops"]
    assert provider.version == airflow_provider_mlops.__version__
    assert "airflow-provider-mlops" in manager.cli_command_providers
    assert [name for name, _ in manager.provider_configs if name == "airflow-provider-mlops"] != []


def test_airflow_knows_the_hook_and_the_decorator():
    from airflow.sdk import task

    manager = ProvidersManagerTaskRuntime()
    hook = manager.hooks["mlflow"]
    assert hook.hook_name == "MLflow"
    assert hook.connection_id_attribute_name == "mlflow_conn_id"
    assert hook.connection_testable
    assert task.train_model is manager.taskflow_decorators["train_model"]


def test_the_section_of_the_configuration_has_its_defaults():
    for option in get_provider_info()["config"]["mlops"]["options"].values():
        assert option["description"]
    assert conf.get("mlops", "target", fallback="") == ""
    assert set(get_provider_info()["config"]["mlops"]["options"]) == {"storage", "journal_conn_id", "target"}


@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")  # Airflow 3.2's own
def test_the_form_of_the_connection_comes_from_the_metadata():
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (form,) = (form for form in HookMetaService.hook_meta_data() if form.connection_type == "mlflow")
    assert form.hook_name == "MLflow"
    assert form.standard_fields.host.title == "Tracking server"
    assert form.standard_fields.url_schema.hidden
    assert form.extra_fields["token"]["schema"]["format"] == "password"
    assert form.extra_fields["verify"]["value"] is True


# Airflow's own `Connection.test_connection` still takes the road to hooks that it has deprecated.
old_road_to_hooks = pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")


@old_road_to_hooks
def test_the_button_that_tests_a_connection_works(mlflow_server, monkeypatch):
    host, _, port = mlflow_server.removeprefix("http://").rpartition(":")
    connection = Connection(conn_id="mlflow_default", conn_type="mlflow", host=host, port=int(port))
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", connection.as_json())
    assert connection.test_connection() == (True, f"MLflow answers at {mlflow_server}.")


@old_road_to_hooks
def test_the_button_says_what_is_wrong_and_nothing_secret(monkeypatch):
    connection = Connection(
        conn_id="mlflow_default", conn_type="mlflow", host="http://127.0.0.1:9", login="ann", password="s3cr3t"
    )
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", connection.as_json())
    works, message = connection.test_connection()
    assert not works
    assert message.startswith("MLflow at http://127.0.0.1:9 cannot be reached")
    assert "s3cr3t" not in message


def test_what_a_function_trained_can_be_read_key_by_key():
    from airflow.sdk import task

    with DAG("function", schedule=None) as dag:

        @task.train_model(experiment="x", data_uri="/rows")
        def fit():
            """Do nothing."""

        fit()
    assert dag.get_task("fit").multiple_outputs is True


def test_the_gate_says_each_thing_once_in_the_log(capsys):
    rule = Rule("roc_auc", at_least=0.9)
    outcomes = (
        RuleOutcome(rule, GateVerdict.REFUSED, Reason.BELOW_ABSOLUTE, "It is 0.8."),
        RuleOutcome(rule, GateVerdict.PASSED, Reason.HOLDS, "It is 0.95."),
    )
    decision = GateDecision(
        GateVerdict.REFUSED, Reason.BELOW_ABSOLUTE, "1 of 2 rules not met. It is 0.8.", rules=outcomes
    )
    gate = EvaluateModelOperator(
        task_id="gate", model="rain", run_id="r", model_uri="m", data_uri="d", label_column="y", rules=[]
    )
    gate._tell(decision, None)
    log = capsys.readouterr().out
    assert "Gate of rain without a champion: REFUSED" in log
    assert log.count("It is 0.8.") == 1
    assert "roc_auc: passed (holds): It is 0.95." in log


@pytest.mark.parametrize(
    ("host", "result", "address"),
    [
        (
            "http://mlflow:5000",
            {"run_id": "r1", "experiment_id": "7"},
            "http://mlflow:5000/#/experiments/7/runs/r1/artifacts/mlops/drift_report.html",
        ),
        ("http://mlflow:5000", {"run_id": None}, ""),
        ("http://mlflow:5000", None, ""),
        ("sqlite:////data/mlflow.db", {"run_id": "r1"}, ""),
    ],
    ids=["champion", "another reference", "nothing", "no server"],
)
def test_a_check_links_to_the_report_on_the_champions_run(monkeypatch, host, result, address):
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": host}))
    monkeypatch.setattr("airflow_provider_mlops.links.XCom.get_value", lambda **_: result)
    check = CheckDataDriftOperator(task_id="check", model="rain", data={"path": "x"})
    (link,) = check.operator_extra_links
    assert link.get_link(check, ti_key=None) == address
