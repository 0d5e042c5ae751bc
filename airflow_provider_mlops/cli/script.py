"""What a training script does, read from its text and never by running it. Pure."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from airflow_provider_mlops.errors import ConfigError

__all__ = ["ScriptReport", "read_script"]

_VARIABLES = (
    "MLOPS_DATA_URI",
    "MLOPS_DATA_DIGEST",
    "MLOPS_HYPERPARAMETERS",
    "MLOPS_SEED",
    "MLOPS_LABEL",
    "MLOPS_TIMESTAMP",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_ID",
)


@dataclass(frozen=True, slots=True)
class ScriptReport:
    """
    What the text of a script shows. Lines are 1-based, 0 where there is none.

    :param logs_model: line of the first call of ``log_model`` or ``autolog``.
    :param how: that call, as it is written.
    :param starts_run: line of the first ``start_run``.
    :param sets_target: line of the first ``set_tracking_uri`` or ``set_experiment``, which leads away from the run that
        was made for the script.
    :param variables: the variables of the training contract that it names, in the order of the contract.
    :param predicts_probabilities: the name ``predict_proba`` occurs.
    :param looks_like_dag: Airflow would take the file for one with DAGs: it holds the words "airflow" and "dag".
    """

    logs_model: int
    how: str
    starts_run: int
    sets_target: int
    variables: tuple[str, ...]
    predicts_probabilities: bool
    looks_like_dag: bool


def read_script(text: str, *, name: str) -> ScriptReport:
    """
    Return what *text*, Python, shows.

    :param name: the file, for messages.
    :raises ConfigError: the text is no Python of this version.
    """
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        raise ConfigError(f"{name}:{line}: not Python: {getattr(error, 'msg', error)}.") from None
    calls = [(node.lineno, *_called(node)) for node in nodes if isinstance(node, ast.Call)]
    words = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = words | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    logs_model, how = min(
        ((line, whole) for line, whole, last in calls if last in ("log_model", "autolog")), default=(0, "")
    )
    lowered = text.lower()
    return ScriptReport(
        logs_model=logs_model,
        how=how,
        starts_run=min((line for line, _, last in calls if last == "start_run"), default=0),
        sets_target=min((line for line, _, last in calls if last in ("set_tracking_uri", "set_experiment")), default=0),
        variables=tuple(name for name in _VARIABLES if name in words),
        predicts_probabilities="predict_proba" in names,
        looks_like_dag="airflow" in lowered and ("dag" in lowered or "asset" in lowered),
    )


def _called(call: ast.Call) -> tuple[str, str]:
    """Return the called name, whole and its last part: ``("mlflow.sklearn.log_model", "log_model")``."""
    whole = ast.unparse(call.func)
    return whole, whole.rpartition(".")[2]
