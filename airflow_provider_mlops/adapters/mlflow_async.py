"""
The little of MLflow that a trigger reads, over its REST interface: no import of mlflow, and the event loop stays free.

The triggerer runs thousands of triggers in one loop. `MlflowRegistry` would block it, and its import costs seconds.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import ConfigError, ServiceError
from airflow_provider_mlops.promotion.registry import check_alias, check_model_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from airflow_provider_mlops.adapters.mlflow import MlflowAddress

__all__ = ["AliasReader", "alias_reader"]

_CONNECT_SECONDS = 5.0
_DENIED = frozenset({401, 403})


class AliasReader:
    """Reads aliases of registered models. Made by `alias_reader`."""

    def __init__(self, client: httpx.AsyncClient, uri: str) -> None:
        self._client = client
        self._uri = uri

    async def version_of(self, model: str, *, alias: str) -> str | None:
        """
        Return the version that *alias* points at, or ``None`` when the model or the alias does not exist.

        :raises ConfigError: access is denied, or no registry could hold such a name. Asking again will not help.
        :raises ServiceError: the server cannot be reached, failed, or is no MLflow. A later question may be answered.
        """
        import httpx

        check_model_name(model)
        check_alias(alias)
        try:
            answer = await self._client.get("/api/2.0/mlflow/registered-models/get", params={"name": model})
        except httpx.HTTPError as error:
            raise ServiceError(
                f"MLflow at {self._uri} cannot be reached: {_short(error) or type(error).__name__}. Check that it "
                "runs, and host, port and scheme of the connection."
            ) from error
        return self._aliases(answer, model).get(alias)

    def _aliases(self, answer: httpx.Response, model: str) -> dict[str, str]:
        if answer.status_code in _DENIED:
            raise ConfigError(
                f"MLflow at {self._uri} denies access to model {model!r} ({answer.status_code}): "
                f"{_short(answer.text)}. Check login, password or token of the connection and what this user may do."
            )
        try:
            content: Any = answer.json()
            if answer.status_code == 200:
                aliases = content["registered_model"].get("aliases", [])
                return {str(entry["alias"]): str(entry["version"]) for entry in aliases}
            code, message = str(content["error_code"]), content.get("message", "")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ServiceError(
                f"MLflow at {self._uri} answered {answer.status_code} with what is no answer of MLflow: "
                f"{_short(answer.text)}. Is this the address of an MLflow server?"
            ) from error
        if code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise ServiceError(f"MLflow at {self._uri} failed with model {model!r}: {code}: {_short(message)}.")


@asynccontextmanager
async def alias_reader(address: MlflowAddress) -> AsyncIterator[AliasReader]:
    """
    Open a reader of the MLflow server at *address*, with its credentials.

    :raises ConfigError: *address* is a database file, which only mlflow itself can read; or its file of certificate
        authorities cannot be used.
    """
    import httpx

    if address.file is not None:
        raise ConfigError(
            f"A trigger cannot read {address.uri}: it speaks to an MLflow server. Run one, or pass deferrable=False."
        )
    headers = {"Authorization": f"Bearer {address.token}"} if address.token else {}
    try:
        # In a thread: reading the machine's certificate authorities takes tens of milliseconds.
        verify = await asyncio.to_thread(_trusted, address)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"MLflow at {address.uri}: the certificate authorities in {address.verify!r} cannot be used: {error}."
        ) from error
    async with httpx.AsyncClient(
        base_url=address.uri,
        auth=httpx.BasicAuth(address.login, address.password or "") if address.login else None,
        headers=headers,
        verify=verify,
        timeout=httpx.Timeout(address.timeout, connect=_CONNECT_SECONDS),
        follow_redirects=False,
    ) as client:
        yield AliasReader(client, address.uri)


def _trusted(address: MlflowAddress) -> ssl.SSLContext | bool:
    """Return what httpx takes as *verify*; nothing is loaded where nothing is encrypted."""
    import httpx

    if address.verify is False or address.uri.startswith("http:"):
        return False
    if isinstance(address.verify, str):
        return ssl.create_default_context(cafile=address.verify)
    return httpx.create_ssl_context()


def _short(message: object) -> str:
    """Return a message on one line, cut, without a full stop."""
    return " ".join(str(message).split())[:256].rstrip(".")
