"""An experiment tracker in memory, held to the same contract as the real one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from airflow_provider_mlops.errors import ConfigError, NotFoundError
from airflow_provider_mlops.jobs.tracking import (
    LoggedModel,
    Run,
    check_artifact_path,
    check_experiment_name,
    check_final_status,
)


class MemoryTracking:
    def __init__(self) -> None:
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, Run] = {}
        self._files: dict[tuple[str, str], bytes] = {}
        self._models: dict[str, list[LoggedModel]] = {}
        self._model_files: dict[str, dict[str, str]] = {}

    def experiment(self, name: str) -> str:
        return self._experiments.setdefault(check_experiment_name(name), str(len(self._experiments) + 1))

    def create_run(self, experiment_id: str, *, name: str, tags: Mapping[str, str]) -> Run:
        if experiment_id not in self._experiments.values():
            raise NotFoundError("Experiment", experiment_id)
        run_id = f"{len(self._runs) + 1:032x}"
        self._runs[run_id] = Run(run_id, experiment_id, name, "RUNNING", dict(tags), {}, {}, f"memory:/{run_id}")
        return self._runs[run_id]

    def run(self, run_id: str) -> Run:
        try:
            return self._runs[run_id]
        except KeyError:
            raise NotFoundError("Run", run_id) from None

    def find_runs(self, experiment_id: str, *, tags: Mapping[str, str]) -> list[Run]:
        runs = [run for run in reversed(self._runs.values()) if run.experiment_id == experiment_id]
        return [run for run in runs if tags.items() <= run.tags.items()]

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        run = self.run(run_id)
        for key, value in (params or {}).items():
            if run.params.get(key, value) != value:
                raise ConfigError(f"Parameter {key!r} of run {run_id} is {run.params[key]!r} already.")
        self._runs[run_id] = replace(
            run,
            params={**run.params, **(params or {})},
            metrics={**run.metrics, **(metrics or {})},
            tags={**run.tags, **(tags or {})},
        )

    def end_run(self, run_id: str, status: str) -> None:
        self._runs[run_id] = replace(self.run(run_id), status=check_final_status(status))

    def add_model(
        self, run_id: str, name: str = "model", *, has_signature: bool = True, files: Mapping[str, str] | None = None
    ) -> LoggedModel:
        """What a training script does: log a model into the run."""
        model_id = f"m-{sum(map(len, self._models.values())) + 1:032x}"
        model = LoggedModel(model_id, f"models:/{model_id}", name, has_signature, f"memory:/models/{model_id}")
        self._models.setdefault(self.run(run_id).run_id, []).insert(0, model)
        self._model_files[model.uri] = {"MLmodel": "flavors: {python_function: {}}\n", **(files or {})}
        return model

    def models(self, run_id: str) -> list[LoggedModel]:
        return list(self._models.get(self.run(run_id).run_id, []))

    def log_text(self, run_id: str, text: str, path: str) -> None:
        self._files[self.run(run_id).run_id, check_artifact_path(path)] = text.encode()

    def read_text(self, run_id: str, path: str) -> str:
        try:
            return self._files[self.run(run_id).run_id, check_artifact_path(path)].decode()
        except KeyError:
            raise NotFoundError("File", path, hint=f"Run {run_id} has no such file.") from None

    def read_model_text(self, uri: str, path: str) -> str:
        files = self._files_of(uri)
        if check_artifact_path(path) not in files:
            raise NotFoundError("File", path, known=files)
        return files[path]

    def download_model(self, uri: str, destination: Path) -> Path:
        files = self._files_of(uri)
        destination.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (destination / name).write_text(text)
        return destination

    def _files_of(self, uri: str) -> dict[str, str]:
        if uri not in self._model_files:
            raise NotFoundError("Model", uri)
        return self._model_files[uri]
