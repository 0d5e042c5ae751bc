"""Rollouts on one machine, without a cluster: the router of `serving.local` as a target."""

from __future__ import annotations

import fcntl
import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import ConfigError, ConflictError, ServiceError
from airflow_provider_mlops.rollout.analysis import Counts
from airflow_provider_mlops.rollout.state import RolloutState
from airflow_provider_mlops.rollout.target import Arm, Observation
from airflow_provider_mlops.serving import local
from airflow_provider_mlops.serving.environment import interpreter
from airflow_provider_mlops.serving.processes import Served

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_mlops.rollout.target import Action

__all__ = ["PROFILE_FILE", "LocalTarget"]

PROFILE_FILE = "profile.json"
"""A model folder that holds a file of this name, a `DataProfile`, has its live traffic counted on those bins."""

_TIMEOUT = 5  # seconds a look may take


class LocalTarget:
    """
    Serves models below one folder of this machine. The place of a version's files is a local folder.

    :param root: folder for state, logs and wishes; made private to this user.
    :param python: ``current`` serves models with this interpreter, ``model`` with an environment made for each model.
    :param model_environment: variables for the model servers, secrets too; they are never written to disk. A router
        that runs already keeps those it was started with.
    :param port: port for the models of this target; ``None`` keeps a model's port or chooses a free one.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        python: str = "current",
        model_environment: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self._root = Path(root).absolute()
        self._python = python
        self._environment = dict(model_environment or {})
        self._port = port

    def __repr__(self) -> str:
        return f"LocalTarget({str(self._root)!r})"

    def url(self, name: str) -> str | None:
        """Return where *name* is served, ``http://127.0.0.1:PORT``, or ``None`` when it never was."""
        port = local.port_of(self._root, name)
        return None if port is None else f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        """End the router and all servers; what is wanted stays written and is served again after the next `act`."""
        local.stop(self._root)

    def read_state(self, name: str) -> tuple[RolloutState | None, str]:
        """Return the state last written for *name* and its token; ``(None, "")`` when there is none."""
        try:
            text = self._state_file(name).read_text("utf-8")
        except FileNotFoundError:
            return None, ""
        return RolloutState.from_json(text), _token(text)

    def write_state(self, name: str, state: RolloutState, expected_token: str) -> str:
        """
        Write *state* if the state there still has *expected_token*; return the new token.

        :raises ConflictError: somebody else wrote first; nothing was written.
        """
        file, text = self._state_file(name), state.to_json()
        with self._locked(file):
            found = _token(file.read_text("utf-8")) if file.exists() else ""
            if found != expected_token:
                raise ConflictError(
                    f"The rollout state of {name!r} in {file} was written by somebody else. Read it again."
                )
            local.replace_file(file, text)
        return _token(text)

    def observe(self, name: str) -> Observation:
        """
        Return what serves *name* now.

        :raises ServiceError: the router does not answer, or another program has its port.
        """
        url = self.url(name)
        if url is None:
            return Observation(arms={})
        import httpx

        try:
            answer = httpx.get(f"{url}/_rollout/observation", timeout=_TIMEOUT, trust_env=False)
            answer.raise_for_status()
            body = answer.json()
            if body["name"] != name:
                raise ServiceError(f"At {url} {body['name']!r} is served, not {name!r}.")
            arms = {version: _arm(values) for version, values in body["arms"].items()}
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ServiceError(
                local.complaint(self._root, name)
                or f"The router of {name!r} does not answer at {url} ({error!r}). See {self._root / 'router.log'}."
            ) from error
        return Observation(arms=arms, counter=body["counter"])

    def act(self, name: str, actions: tuple[Action, ...]) -> None:
        """
        Make *actions* the whole wish for *name*, and see that the router runs.

        With ``python="model"`` the first call for a version also makes its environment, which takes a while.

        :raises ConfigError: the files of a version are no local folder.
        :raises ServiceError: the router does not start.
        """
        versions = {action.version: (self._served(action), action.percent) for action in actions}
        local.want(self._root, name, versions, port=self._port)
        local.ensure_running(self._root, environment=self._environment)

    def _served(self, action: Action) -> Served:
        folder = Path(action.model)
        if not (folder / "MLmodel").is_file():
            raise ConfigError(
                f"Version {action.version!r}: {action.model!r} is no folder with an MLflow model. "
                "Download the model first; a local target serves local folders."
            )
        profile = folder / PROFILE_FILE
        return Served(
            version=action.version,
            uri=str(folder.absolute()),
            python=str(interpreter(self._python, folder, self._root / ".environments")),
            profile=str(profile.absolute()) if profile.is_file() else None,
        )

    def _state_file(self, name: str) -> Path:
        return local.model_folder(self._root, name) / "rollout.json"

    @contextmanager
    def _locked(self, file: Path) -> Iterator[None]:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.parent.mkdir(exist_ok=True, mode=0o700)
        with file.with_name("rollout.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _arm(values: Mapping[str, Any]) -> Arm:
    counts = Counts(
        requests=values["requests"],
        errors=values["errors"],
        exposure=values["exposure"],
        first_errors=values["first_errors"],
        clients_with_error=values["clients_with_error"],
        latency=tuple(values["latency"]),
        # A router that was started by an earlier version of this package knows less.
        pace=tuple(values.get("pace", ())),
        predictions=values.get("predictions", {}),
    )
    return Arm(percent=values["percent"], ready=values["ready"], restarts=values["restarts"], counts=counts)


def _token(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
