"""``@task.train_model``: a function as a training job."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory

from airflow_provider_mlops.operators.training import TrainOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.sdk import Context

__all__ = ["train_model_task"]

_SCRIPT = '''\
"""The training function of an Airflow task, as a script."""

import json

{source}

if __name__ == "__main__":
    {name}(*json.loads({args!r}), **json.loads({kwargs!r}))
'''


class _TrainModelDecoratedOperator(DecoratedOperator, TrainOperator):
    """Run the decorated function as `TrainOperator` runs a script."""

    custom_operator_name = "@task.train_model"
    template_fields: Sequence[str] = (
        *(field for field in TrainOperator.template_fields if field != "script"),
        "op_args",
        "op_kwargs",
    )

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Sequence[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable, op_args=op_args or [], op_kwargs=op_kwargs or {}, script="", **kwargs
        )

    def execute(self, context: Context) -> dict[str, str]:
        """Write the function into a script of its own and train with it."""
        from airflow_provider_mlops.adapters.text_files import write_text
        from airflow_provider_mlops.errors import ConfigError
        from airflow_provider_mlops.hooks.settings import storage

        try:
            args, kwargs = json.dumps(list(self.op_args)), json.dumps(dict(self.op_kwargs))
        except TypeError as error:
            raise ConfigError(
                f"@task.train_model: arguments of {self.python_callable.__name__} must be plain JSON values: {error}."
            ) from error
        source: str = self.get_python_source()  # type: ignore[no-untyped-call]
        text = _SCRIPT.format(source=source, name=self.python_callable.__name__, args=args, kwargs=kwargs)
        folder = storage() / "functions" / hashlib.sha256(text.encode()).hexdigest()[:32]
        self.script = f"{folder}/{self.python_callable.__name__}.py"
        write_text(self.script, text)  # whole: mapped tasks of one function write and read the same file at once
        return TrainOperator.execute(self, context)


def train_model_task(
    python_callable: Callable[..., Any] | None = None,
    multiple_outputs: bool = True,  # noqa: FBT001, FBT002 - the signature of Airflow's decorators
    **kwargs: Any,
) -> TaskDecorator:
    """
    Run a function as a training job, outside of the task process.

    The function is sent by its source, so it imports what it needs itself. It reads what a training script reads
    (`airflow_provider_mlops.jobs.contract`), and logs one model into ``mlflow.start_run()``. Its arguments are plain
    JSON values. The task returns what `TrainOperator` returns.

    :param python_callable: the function.
    :param multiple_outputs: push each key of the result as an XCom of its own.
    :param kwargs: the parameters of `TrainOperator`, without *script*.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=_TrainModelDecoratedOperator,
        **kwargs,
    )
