"""
MLflow as registry and tracker, over HTTP or on a SQLite file.

MLflow's own stores do the talking; what is ours is around them. Credentials are handed to each request and never pass
through the environment, which a worker shares with all it starts. Nothing waits for minutes: MLflow's client retries
up to seven times with growing pauses, this one gives up after seconds and leaves the rest to Airflow's retries. And no
exception of MLflow, requests or SQLAlchemy gets out.

``import mlflow`` costs seconds, so nothing of it is imported before the first call.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow_provider_mlops.errors import ConfigError, MlopsError, NotFoundError, ServiceError
from airflow_provider_mlops.jobs.tracking import (
    LoggedModel,
    Run,
    check_artifact_path,
    check_experiment_name,
    check_final_status,
)
from airflow_provider_mlops.promotion.registry import ModelVersion, check_alias, check_model_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from requests import Response

__all__ = ["MlflowAddress", "MlflowRegistry", "MlflowTracking"]

_PAUSES = (0.5, 1.0, 2.0)  # seconds between the tries of one request
_CONNECT_SECONDS = 5.0
_TRANSFER_SECONDS = 600.0  # a proxied upload is answered when the server has stored it
_BUSY = frozenset({429, 502, 503, 504})
_DENIED = frozenset({401, 403})
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_PAGE = 1000
_DESCRIPTION = 5000  # characters that its database holds
_RUN_ID = re.compile(r"[A-Za-z0-9][\w-]{0,255}", re.ASCII)
_MODEL_URI = re.compile(r"models:/(?:(?P<id>m-[^/@]+)|(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[\w-]+)))")
_ADDRESS = re.compile(r"https?://(?:[^\s/?#@:\[\]]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?(/[^\s?#]*)?|sqlite:///.+")
_QUOTABLE = re.compile(r"[\w.:/ -]*", re.ASCII)  # what a search filter can hold; the rest is filtered here


@dataclass(frozen=True)
class MlflowAddress:
    """
    Where an MLflow is and how to be let in.

    :param uri: ``http://host:5000``, ``https://host/prefix`` or ``sqlite:///file``; the last needs the full mlflow.
    :param login: user of basic authentication, together with *password*.
    :param token: bearer token, instead of login and password.
    :param verify: whether to verify the server's certificate, or a file with the authorities to trust.
    :param timeout: seconds to wait for one answer. A connection is given 5 s whatever this says.
    :raises ConfigError: another scheme, or credentials that are incomplete or inside the URI.
    """

    uri: str
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    verify: bool | str = True
    timeout: float = 30.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.uri)
        if "@" in parts.netloc:
            shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            raise ConfigError(f"The address of MLflow, {shown!r}, must not hold credentials: use login and password.")
        if _ADDRESS.fullmatch(self.uri) is None:
            raise ConfigError(
                f"{self.uri!r} is no address of an MLflow. Write http://host:5000, https://host or sqlite:///file.db."
            )
        if bool(self.login) != bool(self.password):
            raise ConfigError(f"MLflow at {self.uri}: give login and password together, or a token, or none.")
        if self.token and self.login:
            raise ConfigError(f"MLflow at {self.uri}: give a token or a login, not both.")
        if parts.scheme == "sqlite":
            file = Path(self.uri.removeprefix("sqlite:///")).expanduser().resolve()
            object.__setattr__(self, "uri", f"sqlite:///{file}")
        else:
            object.__setattr__(self, "uri", self.uri.rstrip("/"))

    @classmethod
    def of(
        cls,
        *,
        host: str | None,
        schema: str | None = None,
        port: int | None = None,
        login: str | None = None,
        password: str | None = None,
        token: str | None = None,
        verify: bool | str = True,
    ) -> MlflowAddress:
        """
        Return the address that the fields of a connection describe.

        :param host: a host name, or a whole URI: then *schema* and *port* must not say something else.
        :param schema: ``http`` when it is not given, ``https`` for port 443.
        :param verify: may be the text ``true`` or ``false`` as well.
        :raises ConfigError: there is no host, or the fields contradict each other.
        """
        if not host:
            raise ConfigError(
                "The MLflow connection has no host. Write a name, http://host:5000 or sqlite:////file.db."
            )
        if isinstance(verify, str) and verify.lower() in {"true", "false", ""}:
            verify = verify.lower() != "false"
        if "://" not in host:
            schema = schema or ("https" if port == 443 else "http")
            return cls(f"{schema}://{host}{f':{port}' if port else ''}", login, password, token, verify)
        address = cls(host, login, password, token, verify)
        parts = urlsplit(address.uri)
        if (schema and schema != parts.scheme) or (port and port != parts.port):
            raise ConfigError(
                f"The MLflow connection's host is the URI {address.uri!r}, but schema {schema!r} or port {port!r} says "
                "something else. Leave both empty."
            )
        return address

    def environment(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the variables with which a client of MLflow finds this address: plain ones, and secret ones."""
        plain = {"MLFLOW_TRACKING_URI": self.uri}
        if self.verify is False:
            plain["MLFLOW_TRACKING_INSECURE_TLS"] = "true"
        elif isinstance(self.verify, str):
            plain["MLFLOW_TRACKING_SERVER_CERT_PATH"] = self.verify
        if self.login:
            plain["MLFLOW_TRACKING_USERNAME"] = self.login
        secret = {"MLFLOW_TRACKING_PASSWORD": self.password, "MLFLOW_TRACKING_TOKEN": self.token}
        return plain, {key: value for key, value in secret.items() if value}

    @property
    def file(self) -> Path | None:
        """The SQLite file, or ``None`` for a server."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:") else None


class MlflowRegistry:
    """
    The `Registry` that MLflow keeps.

    One version per run holds as long as every writer goes through here: MLflow has no unique key for it. Two processes
    that create at the same moment each make a version, both then find the lower one, and the higher one is deleted
    by its maker; it stays behind when that process dies just then, and no call here ever returns it.
    """

    def __init__(self, address: MlflowAddress | str) -> None:
        self._mlflow = _Mlflow(MlflowAddress(address) if isinstance(address, str) else address)

    def create_version(self, model: str, *, run_id: str, source: str, tags: Mapping[str, str]) -> ModelVersion:
        """See `Registry.create_version`."""
        check_model_name(model)
        _check_run_id(run_id)
        found = self._of_run(model, run_id)
        if found is None:
            made = self._create(model, run_id, source, tags)
            found = self._of_run(model, run_id) or made
            if found.version != made.version:
                with self._mlflow.errors("Version", made.version):
                    self._mlflow.registry.delete_model_version(model, made.version)
        self._write_tags(found, tags)
        return self.version(model, found.version)

    def version(self, model: str, version: str) -> ModelVersion:
        """See `Registry.version`."""
        check_model_name(model)
        if not str(version).isdecimal():
            raise self._unknown(model, version)
        try:
            with self._mlflow.errors("Version", version):
                return _version(self._mlflow.registry.get_model_version(model, version))
        except NotFoundError:
            raise self._unknown(model, version) from None

    def versions(self, model: str) -> list[ModelVersion]:
        """See `Registry.versions`."""
        check_model_name(model)
        found = self._search(f"name = '{model}'")
        aliases = self._aliases(model) if found else {}  # a search leaves them out
        return [
            replace(version, aliases=tuple(sorted(alias for alias, to in aliases.items() if to == version.version)))
            for version in sorted(found, key=lambda version: int(version.version), reverse=True)
        ]

    def version_of(self, model: str, *, alias: str) -> str | None:
        """See `Registry.version_of`."""
        check_model_name(model)
        check_alias(alias)
        return self._aliases(model).get(alias)

    def set_alias(self, model: str, *, alias: str, version: str) -> None:
        """See `Registry.set_alias`."""
        check_alias(alias)
        self.version(model, version)
        with self._mlflow.errors("Version", version):
            self._mlflow.registry.set_registered_model_alias(model, alias, version)

    def delete_alias(self, model: str, *, alias: str) -> None:
        """See `Registry.delete_alias`."""
        if self.version_of(model, alias=alias) is not None:
            with self._mlflow.errors("Alias", alias):
                self._mlflow.registry.delete_registered_model_alias(model, alias)

    def describe(self, model: str, version: str, text: str) -> None:
        """See `Registry.describe`. MLflow keeps 5,000 characters; what is longer is cut."""
        kept = text if len(text) <= _DESCRIPTION else f"{text[: _DESCRIPTION - 3]}..."
        if self.version(model, version).description != kept:
            with self._mlflow.errors("Version", version):
                self._mlflow.registry.update_model_version(model, version, kept)

    def _aliases(self, model: str) -> dict[str, str]:
        """Return the version that each alias of *model* points at; nothing for an unknown model."""
        try:
            with self._mlflow.errors("Model", model):
                found = self._mlflow.registry.get_registered_model(model)
        except NotFoundError:
            return {}
        if not found.name:  # an empty answer must not pass for a model without a champion
            raise ServiceError(
                f"MLflow at {self._mlflow.address.uri} answered nothing about model {model!r}. Is this the address of "
                "an MLflow server, and is nothing in between?"
            )
        return {str(alias): str(version) for alias, version in found.aliases.items()}

    def _write_tags(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        from mlflow.entities.model_registry import ModelVersionTag

        for key, value in tags.items():
            if version.tags.get(key) != value:  # each tag costs a request
                with self._mlflow.errors("Tag", key):
                    self._mlflow.registry.set_model_version_tag(
                        version.model, version.version, ModelVersionTag(key, value)
                    )

    def _create(self, model: str, run_id: str, source: str, tags: Mapping[str, str]) -> ModelVersion:
        from mlflow.entities.model_registry import ModelVersionTag
        from mlflow.exceptions import MlflowException

        logged = _MODEL_URI.fullmatch(source)
        model_id = logged["id"] if logged else None
        if model_id and self._mlflow.address.file:
            # On a database file MLflow would look the model up at the process's own tracking URI, not at this one.
            source = self._mlflow.location(source)
        with self._mlflow.errors("Model", model):
            try:
                self._mlflow.registry.create_registered_model(model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        with self._mlflow.errors("Model", source):
            return _version(
                self._mlflow.registry.create_model_version(
                    model,
                    source,
                    run_id,
                    tags=[ModelVersionTag(key, value) for key, value in tags.items()],
                    model_id=model_id,
                )
            )

    def _of_run(self, model: str, run_id: str) -> ModelVersion | None:
        """Return the lowest version of *model* that was made from *run_id*."""
        found = [version for version in self._search(f"run_id = '{run_id}'") if version.model == model]
        return min(found, key=lambda version: int(version.version), default=None)

    def _search(self, condition: str) -> list[ModelVersion]:
        with self._mlflow.errors("Versions with", condition):
            search = self._mlflow.registry.search_model_versions
            return [_version(entity) for entity in _pages(lambda token: search(condition, _PAGE, page_token=token))]

    def _unknown(self, model: str, version: str) -> NotFoundError:
        known = [found.version for found in self.versions(model)]
        uri = self._mlflow.address.uri
        hint = (
            f"Model {model!r} at {uri} has versions {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}."
            if known
            else f"No version of a model {model!r} is registered at {uri}."
        )
        return NotFoundError("Version", version, hint=hint)


class MlflowTracking:
    """The `Tracking` that MLflow keeps."""

    def __init__(self, address: MlflowAddress | str) -> None:
        self._mlflow = _Mlflow(MlflowAddress(address) if isinstance(address, str) else address)

    def greeting(self) -> str:
        """Ask for one experiment and return a sentence that says who answered. :raises MlopsError: nobody did."""
        from mlflow.entities import ViewType

        with self._mlflow.errors("Experiments of", self._mlflow.address.uri):
            self._mlflow.tracking.search_experiments(ViewType.ACTIVE_ONLY, 1)
        return f"MLflow answers at {self._mlflow.address.uri}."

    def experiment(self, name: str) -> str:
        """See `Tracking.experiment`. :raises ConfigError: it is deleted, and MLflow keeps its name."""
        from mlflow.exceptions import MlflowException

        check_experiment_name(name)
        with self._mlflow.errors("Experiment", name):
            found = self._mlflow.tracking.get_experiment_by_name(name)
            if found is None:
                try:
                    return str(self._mlflow.tracking.create_experiment(name))
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                found = self._mlflow.tracking.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage == "deleted":
            raise ConfigError(
                f"Experiment {name!r} at {self._mlflow.address.uri} is deleted, and its name is still taken. Restore "
                "it (mlflow experiments restore), remove it for good (mlflow gc), or use another name."
            )
        return str(found.experiment_id)

    def create_run(self, experiment_id: str, *, name: str, tags: Mapping[str, str]) -> Run:
        """See `Tracking.create_run`."""
        from mlflow.entities import RunTag

        with self._mlflow.errors("Experiment", experiment_id):
            return _run(
                self._mlflow.tracking.create_run(
                    experiment_id, "airflow", _now(), [RunTag(key, value) for key, value in tags.items()], name
                )
            )

    def run(self, run_id: str) -> Run:
        """See `Tracking.run`."""
        _check_run_id(run_id)
        with self._mlflow.errors("Run", run_id):
            return _run(self._mlflow.tracking.get_run(run_id))

    def find_runs(self, experiment_id: str, *, tags: Mapping[str, str]) -> list[Run]:
        """See `Tracking.find_runs`."""
        from mlflow.entities import ViewType

        conditions = [
            f"tags.`{key}` = '{value}'"
            for key, value in tags.items()
            if _QUOTABLE.fullmatch(key) and _QUOTABLE.fullmatch(value)
        ]
        with self._mlflow.errors("Experiment", experiment_id):
            found = _pages(
                lambda token: self._mlflow.tracking.search_runs(
                    [experiment_id],
                    " and ".join(conditions),
                    ViewType.ACTIVE_ONLY,
                    _PAGE,
                    ["attributes.start_time DESC"],
                    token,
                )
            )
            runs = [_run(entity) for entity in found]
        return [run for run in runs if tags.items() <= run.tags.items()]

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """See `Tracking.log`."""
        from mlflow.entities import Metric, Param, RunTag

        _check_run_id(run_id)
        now = _now()
        entries: list[tuple[int, Any]] = [
            *((0, Metric(key, float(value), now, 0)) for key, value in (metrics or {}).items()),
            *((1, Param(key, value)) for key, value in (params or {}).items()),
            *((2, RunTag(key, value)) for key, value in (tags or {}).items()),
        ]
        for start in range(0, len(entries), 100):  # MLflow takes 100 parameters and 100 tags at a time
            batch = entries[start : start + 100]
            with self._mlflow.errors("Run", run_id):
                self._mlflow.tracking.log_batch(
                    run_id, *([entry for kind, entry in batch if kind == wanted] for wanted in range(3))
                )

    def end_run(self, run_id: str, status: str) -> None:
        """See `Tracking.end_run`. The time at which it ended is kept when it has that status already."""
        from mlflow.entities import RunStatus

        check_final_status(status)
        run = self.run(run_id)
        if run.status != status:
            with self._mlflow.errors("Run", run_id):
                self._mlflow.tracking.update_run_info(run_id, RunStatus.from_string(status), _now(), run.name)

    def models(self, run_id: str) -> list[LoggedModel]:
        """See `Tracking.models`."""
        experiment_id = self.run(run_id).experiment_id
        order = [{"field_name": "creation_timestamp", "ascending": False}]
        with self._mlflow.errors("Run", run_id):
            search = self._mlflow.tracking.search_logged_models
            found = list(
                _pages(
                    lambda token: search(
                        [experiment_id], f"source_run_id = '{run_id}'", order_by=order, page_token=token
                    )
                )
            )
        return [self._model(entity) for entity in found if str(entity.status) == "READY"]

    def log_text(self, run_id: str, text: str, path: str) -> None:
        """See `Tracking.log_text`."""
        self._mlflow.files(self.run(run_id).artifact_uri).put_text(text, check_artifact_path(path))

    def read_text(self, run_id: str, path: str) -> str:
        """See `Tracking.read_text`."""
        check_artifact_path(path)
        return self._mlflow.files(self.run(run_id).artifact_uri).text(path)

    def read_model_text(self, uri: str, path: str) -> str:
        """See `Tracking.read_model_text`."""
        check_artifact_path(path)
        return self._mlflow.files(self._mlflow.location(uri)).text(path)

    def download_model(self, uri: str, destination: Path) -> Path:
        """See `Tracking.download_model`."""
        if destination.exists():
            return destination
        files = self._mlflow.files(self._mlflow.location(uri))
        destination.parent.mkdir(parents=True, exist_ok=True)
        partial = destination.with_name(f".{destination.name}.{uuid.uuid4().hex}")
        try:
            files.copy_to(partial)
            try:
                partial.rename(destination)
            except OSError:
                if not destination.is_dir():  # another process was quicker, else
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return destination

    def _model(self, entity: Any) -> LoggedModel:
        import yaml

        location = str(entity.artifact_location)
        described = yaml.safe_load(self._mlflow.files(location).text("MLmodel")) or {}
        return LoggedModel(
            model_id=str(entity.model_id),
            uri=f"models:/{entity.model_id}",
            name=str(entity.name),
            has_signature=bool(described.get("signature")),
            artifact_uri=location,
        )


class _Mlflow:
    """MLflow's stores at one address, made at first use, and the translation of all that they raise."""

    def __init__(self, address: MlflowAddress) -> None:
        self.address = address

    @cached_property
    def tracking(self) -> Any:
        """MLflow's tracking store."""
        if self.address.file is None:
            return _rest_stores(self.address)[0]
        with self.errors("Database", self.address.uri):
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            self.address.file.parent.mkdir(parents=True, exist_ok=True)
            return SqlAlchemyStore(self.address.uri, str(self.address.file.parent / "mlartifacts"))

    @cached_property
    def registry(self) -> Any:
        """MLflow's model registry store."""
        if self.address.file is None:
            return _rest_stores(self.address)[1]
        with self.errors("Database", self.address.uri):
            from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

            self.address.file.parent.mkdir(parents=True, exist_ok=True)
            return SqlAlchemyStore(self.address.uri)

    def files(self, location: str) -> _ProxiedFiles | _StoredFiles:
        """Return the files at *location*: through the server where it offers that, else straight from the store."""
        parts = urlsplit(location)
        here = urlsplit(self.address.uri)
        if self.address.file is not None and parts.scheme == "mlflow-artifacts":
            raise ConfigError(f"{location!r} is kept by an MLflow server, but the address is {self.address.uri}.")
        if self.address.file is None and parts.netloc in {"", here.netloc}:
            if parts.scheme == "mlflow-artifacts":
                return _ProxiedFiles(self, parts.path.strip("/"))
            if parts.scheme in {"http", "https"} and _ARTIFACTS in parts.path:
                return _ProxiedFiles(self, parts.path.partition(_ARTIFACTS)[2].strip("/"))
        return _StoredFiles(self, location)

    def location(self, uri: str) -> str:
        """Return where the files of the model *uri* lie."""
        if not uri.startswith("models:"):
            return uri
        named = _MODEL_URI.fullmatch(uri)
        if named is None:
            raise ConfigError(
                f"{uri!r} is no model. Write models:/m-..., models:/NAME/VERSION, models:/NAME@ALIAS or where it lies."
            )
        with self.errors("Model", uri):
            if named["id"]:
                return str(self.tracking.get_logged_model(named["id"]).artifact_location)
            version = named["version"]
            if named["alias"]:
                version = self.registry.get_registered_model(named["name"]).aliases.get(named["alias"])
                if version is None:
                    raise NotFoundError("Model", uri, hint=f"At {self.address.uri} the model has no such alias.")
            stored = str(self.registry.get_model_version_download_uri(named["name"], version))
        return self.location(stored) if stored.startswith("models:/m-") else stored

    def send(self, endpoint: str, method: str, *, repeat: bool = True, **arguments: Any) -> Response:
        """
        Send one request and return the answer, whatever its status.

        A server that cannot be reached or is busy is asked again, for seconds; one that does not answer is not: the
        request may be what keeps it.

        :param repeat: whether the request may arrive twice.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.utils.rest_utils import http_request

        arguments = {"timeout": (_CONNECT_SECONDS, self.address.timeout), **arguments}
        pauses = [*_PAUSES] if repeat else []
        while True:
            if hasattr(arguments.get("data"), "seek"):
                arguments["data"].seek(0)
            try:
                answer: Response = http_request(
                    _credentials(self.address), endpoint, method, max_retries=0, raise_on_status=False, **arguments
                )
            except MlflowException as error:
                # A time-out arrives as one of several exceptions; all of them say so.
                if not pauses or "timed out" in str(error):
                    raise ServiceError(
                        f"MLflow at {self.address.uri} cannot be reached: {_short(error)} Check that it runs, and "
                        "host, port and scheme of the connection."
                    ) from error
            else:
                if not pauses or answer.status_code not in _BUSY:
                    return answer
                answer.close()
            time.sleep(pauses.pop(0))

    def json(self, answer: Response) -> dict[str, Any]:
        """
        Return the JSON object of an answer.

        :raises MlflowException: MLflow says, in JSON, that it could not do it.
        :raises MlopsError: the answer is no JSON object, or access is denied.
        """
        from mlflow.exceptions import RestException

        uri, text = self.address.uri, answer.text
        if answer.status_code in _DENIED:
            raise ConfigError(
                f"MLflow at {uri} denies access ({answer.status_code}): {_short(text)} Check login, password or token "
                "of the connection, what this user may do, and the server's --allowed-hosts."
            )
        try:
            content = json.loads(text or "{}")
        except ValueError:
            content = None
        if not isinstance(content, dict) or (answer.status_code != 200 and "error_code" not in content):
            raise ServiceError(
                f"MLflow at {uri} answered {answer.status_code} with what is no answer of MLflow: {_short(text)} Is "
                "this the address of an MLflow server? A prefix in its path belongs into the address."
            )
        if answer.status_code != 200:
            raise RestException(content)
        return content

    @contextmanager
    def errors(self, kind: str, name: str) -> Iterator[None]:
        """Turn what MLflow and the libraries below it raise into errors of this package, about the *kind* *name*."""
        try:
            yield
        except MlopsError:
            raise
        except ImportError as error:
            raise ConfigError(
                f"{self.address.uri} needs more of MLflow than is installed ({error}): pip install mlflow."
            ) from error
        except Exception as error:
            raise self._translated(error, kind, name) from error

    def _translated(self, error: Exception, kind: str, name: str) -> Exception:
        """Return the error of this package for *error*, or *error* itself when it is a defect of this package."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        uri = self.address.uri
        if isinstance(error, MlflowException):
            match error.error_code:
                case "RESOURCE_DOES_NOT_EXIST":
                    return NotFoundError(kind, name, hint=f"MLflow at {uri} says: {_short(error)}")
                case "INTERNAL_ERROR" if os.strerror(errno.ENOENT) in str(error):  # of older servers
                    return NotFoundError(kind, name, hint=f"MLflow at {uri} says: {_short(error)}")
                case "INVALID_PARAMETER_VALUE" | "BAD_REQUEST" | "INVALID_STATE":
                    return ConfigError(f"MLflow at {uri} refuses {kind.lower()} {name!r}: {_short(error)} Mend it.")
                case "PERMISSION_DENIED" | "UNAUTHENTICATED":
                    return ConfigError(
                        f"MLflow at {uri} denies access to {kind.lower()} {name!r}: {_short(error)} Check login, "
                        "password or token of the connection and what this user may do."
                    )
        elif not isinstance(error, (OSError, SQLAlchemyError)):  # requests raises OSErrors
            return error
        return ServiceError(
            f"MLflow at {uri} failed with {kind.lower()} {name!r}: {_short(error)} Try again; see the server's log."
        )


class _ProxiedFiles:
    """A folder of files that the MLflow server reads and writes for its clients."""

    def __init__(self, mlflow: _Mlflow, root: str) -> None:
        self._mlflow = mlflow
        self._root = root

    def put_text(self, text: str, path: str) -> None:
        """Store *text* as the file *path*. Nothing is written on this machine that a kill could leave there."""
        with self._mlflow.errors("File", path):
            answer = self._mlflow.send(
                self._endpoint(path), "PUT", data=text.encode(), timeout=(_CONNECT_SECONDS, _TRANSFER_SECONDS)
            )
            self._mlflow.json(answer)

    def text(self, path: str) -> str:
        """Return a file as text."""
        with self._mlflow.errors("File", path):
            answer = self._mlflow.send(self._endpoint(path), "GET")
            self._refuse_failure(answer)
            return answer.content.decode("utf-8", errors="replace")

    def copy_to(self, destination: Path, folder: str = "") -> None:
        """Copy all that is below *folder* into *destination*, which is made."""
        with self._mlflow.errors("Files", f"{self._root}/{folder}"):
            path = "/".join(part for part in (self._root, folder) if part)
            listed = self._mlflow.json(self._mlflow.send(_ARTIFACTS, "GET", params={"path": path})).get("files", [])
            if not listed and not folder:
                raise NotFoundError(
                    "Model", self._root, hint=f"MLflow at {self._mlflow.address.uri} has no files of it."
                )
            destination.mkdir(parents=True)
            for entry in listed:
                name = check_artifact_path(str(entry["path"]).rpartition("/")[2])
                inner = f"{folder}/{name}" if folder else name
                if entry.get("is_dir"):
                    self.copy_to(destination / name, inner)
                    continue
                answer = self._mlflow.send(self._endpoint(inner), "GET", stream=True)
                self._refuse_failure(answer)
                with (destination / name).open("wb") as target:
                    target.writelines(answer.iter_content(1 << 20))

    def _endpoint(self, path: str) -> str:
        return f"{_ARTIFACTS}/{quote(f'{self._root}/{path}')}"

    def _refuse_failure(self, answer: Response) -> None:
        if answer.status_code != 200:
            self._mlflow.json(answer)


class _StoredFiles:
    """A folder of files in an artifact store that this process reaches itself, by MLflow's own repositories."""

    def __init__(self, mlflow: _Mlflow, root: str) -> None:
        self._mlflow = mlflow
        self._root = root

    @cached_property
    def _repository(self) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self._root)

    def put_text(self, text: str, path: str) -> None:
        """Store *text* as the file *path*."""
        folder, _, name = path.rpartition("/")
        with self._store_errors(path), TemporaryDirectory() as temporary:
            file = Path(temporary, name)
            file.write_text(text, encoding="utf-8")
            self._repository.log_artifact(str(file), folder or None)

    def text(self, path: str) -> str:
        """Return a file as text."""
        with self._store_errors(path), TemporaryDirectory() as temporary:
            self._require(path)
            return Path(self._repository.download_artifacts(path, temporary)).read_text("utf-8", errors="replace")

    def copy_to(self, destination: Path) -> None:
        """Copy everything into *destination*, which is made."""
        with self._store_errors(self._root):
            self._require("")
            destination.mkdir(parents=True)
            self._repository.download_artifacts("", str(destination))

    def _require(self, path: str) -> None:
        """Raise NotFoundError unless there is a file *path*, or anything at all when *path* is empty."""
        found = [entry.path for entry in self._repository.list_artifacts(path.rpartition("/")[0] or None)]
        if (path not in found) if path else not found:
            raise NotFoundError("File", path or self._root, known=found, hint=f"It is not in {self._root}.")

    @contextmanager
    def _store_errors(self, path: str) -> Iterator[None]:
        """Turn what an artifact store raises, which may be of any library, into a ServiceError."""
        try:
            yield
        except MlopsError:
            raise
        except ImportError as error:
            raise ConfigError(f"The artifact store at {self._root} needs a library: {error}. Install it.") from error
        except Exception as error:
            raise ServiceError(
                f"The artifact store at {self._root} failed with {path!r}: {_short(error)} Check that this process may "
                "reach it: MLflow does not proxy it."
            ) from error


def _rest_stores(address: MlflowAddress) -> tuple[Any, Any]:
    """Return MLflow's tracking and registry stores over HTTP, with `_Mlflow.send` beneath them."""
    from mlflow.protos.model_registry_pb2 import CreateModelVersion, ModelRegistryService
    from mlflow.protos.service_pb2 import CreateRun, MlflowService
    from mlflow.store.model_registry.rest_store import RestStore as RegistryStore
    from mlflow.store.tracking.rest_store import RestStore as TrackingStore
    from mlflow.utils.proto_json_utils import parse_dict
    from mlflow.utils.rest_utils import extract_api_info_for_service

    mlflow = _Mlflow(address)
    endpoints = {
        **extract_api_info_for_service(MlflowService, "/api/2.0"),
        **extract_api_info_for_service(ModelRegistryService, "/api/2.0"),
    }

    class Sender:
        def _call_endpoint(self, api: Any, json_body: str | None = None, endpoint: str | None = None, **_: Any) -> Any:
            usual, method = endpoints[api]
            body = json.loads(json_body) if json_body else None
            answer = mlflow.send(
                endpoint or usual,
                method,
                repeat=api not in {CreateRun, CreateModelVersion},
                **{"params" if method == "GET" else "json": body},
            )
            response = api.Response()
            parse_dict(js_dict=mlflow.json(answer), message=response)
            return response

    class Tracking(Sender, TrackingStore):  # type: ignore[misc]  # mlflow ships no types
        pass

    class Registry(Sender, RegistryStore):  # type: ignore[misc]  # mlflow ships no types
        pass

    return Tracking(lambda: _credentials(address)), Registry(lambda: _credentials(address))


def _credentials(address: MlflowAddress) -> Any:
    from mlflow.utils.rest_utils import MlflowHostCreds

    return MlflowHostCreds(
        address.uri,
        username=address.login,
        password=address.password,
        token=address.token,
        ignore_tls_verification=address.verify is False,
        server_cert_path=address.verify if isinstance(address.verify, str) else None,
    )


def _pages(search: Any) -> Iterator[Any]:
    """Yield the entities of all pages of *search*, which takes the token of a page."""
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def _version(entity: Any) -> ModelVersion:
    return ModelVersion(
        model=str(entity.name),
        version=str(entity.version),
        run_id=entity.run_id or None,
        source=str(entity.source),
        tags=dict(entity.tags),
        aliases=tuple(sorted(entity.aliases)),
        description=entity.description or "",
    )


def _run(entity: Any) -> Run:
    return Run(
        run_id=str(entity.info.run_id),
        experiment_id=str(entity.info.experiment_id),
        name=str(entity.info.run_name),
        status=str(entity.info.status),
        tags=dict(entity.data.tags),
        metrics=dict(entity.data.metrics),
        params=dict(entity.data.params),
        artifact_uri=str(entity.info.artifact_uri),
    )


def _check_run_id(run_id: str) -> None:
    if not isinstance(run_id, str) or _RUN_ID.fullmatch(run_id) is None:
        raise ConfigError(f"{run_id!r} is no id of a run: letters, digits, '_' and '-' only.")


def _now() -> int:
    """Return the time in milliseconds, as MLflow counts it."""
    return time.time_ns() // 1_000_000


def _short(message: object) -> str:
    """Return a message on one line, cut, and with a full stop."""
    text = " ".join(str(message).split())
    text = text if len(text) <= 256 else text[:253] + "..."
    return text if text.endswith((".", "!", "?")) else f"{text}."
