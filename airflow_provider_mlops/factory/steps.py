"""Puts steps one after another, with the user's own in place of ours, before or after them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, chain

from airflow_provider_mlops.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_mlops.pipeline.spec import StepName, StepSpec

__all__ = ["Line"]


class Line:
    """
    A line of tasks that grows to the right.

    :param own: the ``steps:`` of a specification: by ``STEP``, ``before_STEP`` or ``after_STEP``.
    """

    def __init__(self, own: Mapping[StepName, StepSpec]) -> None:
        self._own: Mapping[str, StepSpec] = dict(own.items())
        self._last: BaseOperator | None = None

    def add(self, step: str, make: Callable[[str], BaseOperator]) -> BaseOperator:
        """
        Append *step* and what the user wants before and after it; return the step's own task.

        :param make: makes our operator of a task id; not called when the user replaces the step.
        """
        self._append(f"before_{step}", None)
        task = self._append(step, make)
        self._append(f"after_{step}", None)
        if task is None:  # pragma: no cover - make always makes one
            raise ConfigError(f"steps.{step}: nothing was made.")
        return task

    def _append(self, name: str, make: Callable[[str], BaseOperator] | None) -> BaseOperator | None:
        if name in self._own:
            task = _user_operator(name, self._own[name])
        elif make is not None:
            task = make(name)
        else:
            return None
        if self._last is not None:
            chain(self._last, task)
        self._last = task
        return task


def _user_operator(name: str, step: StepSpec) -> BaseOperator:
    module, _, attribute = step.operator.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise ConfigError(f"steps.{name}.operator: {module} cannot be imported: {error}.") from error
    except AttributeError as error:
        known = vars(importlib.import_module(module))
        raise ConfigError(
            f"steps.{name}.operator: {module} has no {attribute!r}.{did_you_mean(attribute, known)}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, BaseOperator)):
        raise ConfigError(f"steps.{name}.operator: {step.operator} is no Airflow operator.")
    arguments: dict[str, Any] = step.arguments
    try:
        # A step that replaces ours is read as ours are: by the keys of the mapping that it returns.
        return found(task_id=name, **{"multiple_outputs": True, **arguments})
    except TypeError as error:
        raise ConfigError(
            f"steps.{name}.operator: {step.operator} does not take the arguments {', '.join(arguments) or '(none)'}: "
            f"{error}."
        ) from error
