"""The serving engine: the live traffic of a deployed model, as its servers count it."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

from airflow_provider_mlops.drift.profile import DataProfile
from airflow_provider_mlops.errors import ConfigError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["served_profile"]

_TIMEOUT = 10.0  # seconds per server


def served_profile(urls: Sequence[str], *, layout: DataProfile, version: str | None = None) -> DataProfile:
    """
    Return what the servers at *urls* were asked since they started, as one profile on the bins of *layout*.

    Each server of a model version counts its requests on the bins of that version's training data and hands them out
    at ``/profile``; the sum over all replicas is the profile of the live traffic. A server has no event times, so
    there is no window to choose.

    :param urls: the replicas of a model, ``http://host:port``, or the local router's URL of the model.
    :param layout: the reference profile; of its columns those that it judges are returned.
    :param version: count only what this version was asked; replicas of another one, as in a rollout, are left out.
        Without it all must serve the same version.
    :raises ConfigError: no URL; no replica of *version*; several versions and none named; a server that was started
        without profile, or with another one than *layout*.
    :raises ServiceError: a server does not answer: the sum would lack its rows.
    """
    if not urls:
        raise ConfigError("served_by: name the URL of at least one server, http://host:port.")
    answers = [_fetch(url, version) for url in urls]
    mine = [(url, profile) for url, served, profile in answers if version in (None, served)]
    versions = sorted({served for _, served, _ in answers})
    if not mine:
        raise ConfigError(
            f"None of {len(urls)} servers serves version {version}; they serve {', '.join(versions)}. "
            "Deploy that version, or compare with the profile of the one that serves."
        )
    if version is None and len(versions) > 1:
        raise ConfigError(f"The servers serve several versions ({', '.join(versions)}). Name the one to judge.")
    return reduce(DataProfile.merge, [_as(layout, url, profile) for url, profile in mine])


def _fetch(url: str, version: str | None) -> tuple[str, str, DataProfile]:
    """Return *url*, the version that answered, and its profile."""
    import httpx

    where = f"{url.rstrip('/')}/profile"
    try:
        answer = httpx.get(where, params={"version": version} if version else {}, timeout=_TIMEOUT, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceError(
            f"{where} does not answer ({type(error).__name__}: {str(error)[:200]}). Does the model's server run?"
        ) from error
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise ConfigError(
            f"{where} has no profile: {_said(answer.text)} Deploy the model with the profile of its training data."
        )
    if answer.status_code != httpx.codes.OK:
        raise ServiceError(f"{where} answered {answer.status_code}: {_said(answer.text)}")
    return url, answer.headers.get("x-model-version", "?"), DataProfile.from_json(answer.content, source=where)


def _said(text: str) -> str:
    return " ".join(text.split())[:256]


def _as(layout: DataProfile, url: str, profile: DataProfile) -> DataProfile:
    """Return *profile* with the columns of *layout*, in its order."""
    for name, column in layout.columns.items():
        if name not in profile.columns or not column.same_layout(profile.columns[name]):
            raise ConfigError(
                f"The server {url} counts column {name!r} on other bins than the reference has. It was started with "
                "the profile of another training; compare with the profile of the version that it serves."
            )
    segments = layout.segments
    if segments is not None:
        if profile.segments is None or not segments.same_layout(profile.segments):
            raise ConfigError(
                f"The server {url} does not count the reference's segments by {segments.column!r}. It was started with "
                "the profile of another training; compare with the profile of the version that it serves."
            )
        counted = profile.segments.profiles
        segments = replace(
            segments,
            profiles={
                value: replace(
                    counted[value], columns={name: counted[value].columns[name] for name in part.columns}, block=None
                )
                for value, part in segments.profiles.items()
            },
        )
    known = {*layout.columns, *layout.excluded, layout.timestamp}
    return replace(
        profile,
        columns={name: profile.columns[name] for name in layout.columns},
        extra={name: family for name, family in profile.extra.items() if name not in known},
        excluded=layout.excluded,
        block=None,
        origin=None,
        segments=segments,
    )
