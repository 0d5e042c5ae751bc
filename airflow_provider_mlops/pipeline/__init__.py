"""The specification that a user writes, and how a pipeline file becomes one. Pure, but for reading the files."""

from __future__ import annotations

from airflow_provider_mlops.pipeline.loading import Loaded, from_dict, load, target_names
from airflow_provider_mlops.pipeline.rendering import render
from airflow_provider_mlops.pipeline.spec import PipelineSpec

__all__ = ["Loaded", "PipelineSpec", "from_dict", "load", "render", "target_names"]
