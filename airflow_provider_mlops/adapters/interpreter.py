"""What an interpreter is made of: its version and its packages."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass

from airflow_provider_mlops.errors import ConfigError

__all__ = ["Interpreter", "describe"]

_LIST = """
import platform
from importlib.metadata import distributions
print(platform.python_version())
found = {(d.metadata["Name"] or "").lower().replace("_", "-"): d.version for d in distributions()}
print(*sorted(f"{name}=={version}" for name, version in found.items() if name), sep="\\n")
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """
    An interpreter as it was at one moment.

    :param version: ``3.11.7``.
    :param packages: ``name==version`` on each line, sorted.
    :param digest: ``sha256:`` and 64 hexadecimal digits of both.
    """

    version: str
    packages: str
    digest: str


def describe(python: str) -> Interpreter:
    """
    Ask the interpreter *python* for its version and its packages. Takes about a second.

    :raises ConfigError: it cannot be run.
    """
    environment = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    try:
        done = subprocess.run(
            [python, "-c", _LIST], env=environment, capture_output=True, text=True, timeout=120, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().rpartition("\n")[2]
        raise ConfigError(f"The interpreter {python!r} cannot be asked for its packages: {said:.256}") from error
    version, _, packages = done.stdout.partition("\n")
    digest = hashlib.sha256(done.stdout.encode()).hexdigest()
    return Interpreter(version, packages, f"sha256:{digest}")
