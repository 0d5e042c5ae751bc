"""Digests of the files of a logged model, so that two trainings can be compared byte by byte."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["file_digests"]

# What MLflow writes into every model's description anew: whose it is, and when it was made.
_OF_THE_RUN = frozenset({"artifact_path", "model_id", "model_uuid", "run_id", "utc_time_created"})


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below *folder*, by its path; of ``MLmodel`` without ids and time."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(_content(file)).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def _content(file: Path) -> bytes:
    if file.name != "MLmodel":
        return file.read_bytes()
    import yaml

    described = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    kept = {key: value for key, value in described.items() if key not in _OF_THE_RUN}
    return json.dumps(kept, sort_keys=True, default=str).encode()
