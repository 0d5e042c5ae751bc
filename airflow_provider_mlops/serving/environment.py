"""Which Python a model is served with: this one, or one made for the model."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import airflow_provider_mlops
from airflow_provider_mlops.errors import ConfigError, ServiceError

__all__ = ["interpreter", "mismatches", "package_path"]

_log = logging.getLogger(__name__)

_NEEDED = ("prometheus-client>=0.20", "uvicorn>=0.30", "fastapi", "numpy", "pyarrow", "pandas")
_ROOMS = ("data", "drift", "rollout", "serving")  # what a server imports of this package
_BUILD_TIMEOUT = 1800  # seconds; large frameworks are gigabytes
_MARKER = "complete"


def interpreter(policy: str, model_folder: Path, cache: Path) -> Path:
    """
    Return the Python executable to serve the model in *model_folder* with.

    :param policy: ``current``: this interpreter; what the model was trained with and this one lacks or has in another
        major version is logged as one warning. ``model``: a virtual environment with the model's own
        requirements.txt, made by uv on first use and kept in *cache* under the digest of what it holds.
    :raises ConfigError: an unknown policy, no requirements.txt, a Python below 3.11, or no uv.
    :raises ServiceError: uv failed; the end of its output is in the message.
    """
    if policy == "current":
        if found := mismatches(model_folder):
            _log.warning("Model %s was made with other versions: %s.", model_folder.name, "; ".join(found))
        return Path(sys.executable)
    if policy != "model":
        raise ConfigError(f"{policy!r} is no way to choose a Python. Write 'current' or 'model'.")
    requirements = model_folder / "requirements.txt"
    if not requirements.is_file():
        raise ConfigError(f"The model in {str(model_folder)!r} has no requirements.txt. Serve it with 'current'.")
    return _environment(requirements, _python_version(model_folder), cache)


def package_path(python: str | Path) -> dict[str, str]:
    """
    Return the variable by which *python*, an `interpreter`, finds this package, which may be a checkout.

    Another Python than this one has a copy of its own, and must not see the libraries beside this one.
    """
    if str(python) != sys.executable:
        return {}
    return {"PYTHONPATH": str(Path(airflow_provider_mlops.__file__).parents[1])}


def mismatches(model_folder: Path) -> list[str]:
    """Return what the model's files ask for and the running interpreter has in another major version or not at all."""
    found = []
    wanted = _python_version(model_folder)
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if wanted is not None and wanted != running:
        found.append(f"Python {wanted}, here {running}")
    requirements = model_folder / "requirements.txt"
    for line in requirements.read_text("utf-8").splitlines() if requirements.is_file() else ():
        match = re.match(r"\s*([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(?:==\s*([0-9][^\s;,]*))?", line)
        if match is None or line.lstrip().startswith(("#", "-")):
            continue
        try:
            here = importlib.metadata.version(match[1])
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{match[1]}, here missing")
            continue
        if match[2] is not None and _major(match[2]) != _major(here):
            found.append(f"{match[1]} {match[2]}, here {here}")
    return found


def _major(version: str) -> tuple[str, ...]:
    """Return what changes with incompatible releases: the first number, or the first two while it is 0."""
    parts = version.split(".")
    return tuple(parts[:2]) if parts[0] == "0" else (parts[0],)


def _python_version(model_folder: Path) -> str | None:
    """Return ``3.11`` for a model that was made with Python 3.11.7, or ``None`` when it does not say."""
    file = model_folder / "python_env.yaml"
    match = re.search(r"^python:\s*['\"]?(\d+\.\d+)", file.read_text("utf-8"), re.MULTILINE) if file.is_file() else None
    return None if match is None else match[1]


def _environment(requirements: Path, python: str | None, cache: Path) -> Path:
    if python is not None and tuple(map(int, python.split("."))) < (3, 11):
        raise ConfigError(
            f"The model in {str(requirements.parent)!r} was made with Python {python}; the server needs 3.11 or later. "
            "Serve it with 'current', or train it anew."
        )
    uv = shutil.which("uv")
    if uv is None:
        raise ConfigError(
            "To make an environment for a model, uv is needed: pip install uv. Or serve it with 'current'."
        )
    text = requirements.read_text("utf-8")
    parts = (text, python or "", airflow_provider_mlops.__version__, *_NEEDED)
    folder = cache / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    executable = folder / "bin" / "python"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / _MARKER).is_file():
            return executable
        shutil.rmtree(folder, ignore_errors=True)  # a build that was killed
        version = python or f"{sys.version_info.major}.{sys.version_info.minor}"
        _run([uv, "venv", "--quiet", "--python", version, str(folder)], requirements.parent)
        named = [] if re.search(r"^\s*mlflow", text, re.MULTILINE) else ["mlflow>=3.4"]
        install = [uv, "pip", "install", "--quiet", "--python", str(executable), "-r", str(requirements)]
        _run([*install, *named, *_NEEDED], requirements.parent)
        _copy_rooms(folder)
        (folder / _MARKER).touch()
    return executable


def _copy_rooms(environment: Path) -> None:
    """Copy what a server imports of this package: installing all of it would bring Airflow along."""
    source = Path(airflow_provider_mlops.__file__).parent
    (packages,) = (environment / "lib").glob("python*/site-packages")
    target = packages / source.name
    target.mkdir()
    for name in ("__init__.py", "errors.py"):
        shutil.copy(source / name, target / name)
    for room in _ROOMS:
        shutil.copytree(source / room, target / room, ignore=shutil.ignore_patterns("__pycache__"))


def _run(command: list[str], folder: Path) -> None:
    try:
        # The folder matters: requirements may name wheels beside them.
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_BUILD_TIMEOUT)
    except subprocess.CalledProcessError as error:
        said = re.sub(r"//[^/@\s]+@", "//***@", error.stderr.strip())[-1000:]
        raise ServiceError(f"uv could not make the environment of the model in {str(folder)!r}: {said}") from None
    except subprocess.TimeoutExpired:
        raise ServiceError(f"uv did not make the environment of the model in {str(folder)!r} in time.") from None
