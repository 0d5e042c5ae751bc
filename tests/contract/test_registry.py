"""What every model registry must do. A new registry joins by one line in REGISTRIES."""

from __future__ import annotations

import itertools
import uuid

import pytest

from airflow_provider_mlops.adapters.mlflow import MlflowRegistry
from airflow_provider_mlops.errors import ConfigError, NotFoundError
from fakes.registry import MemoryRegistry

REGISTRIES = [
    pytest.param(lambda request: MemoryRegistry(), id="memory"),
    pytest.param(
        lambda request: MlflowRegistry(request.getfixturevalue("mlflow_server")),
        id="mlflow",
        marks=pytest.mark.service("mlflow"),
    ),
    pytest.param(
        lambda request: MlflowRegistry(request.getfixturevalue("mlflow_guarded")),
        id="mlflow with authentication",
        marks=pytest.mark.service("mlflow"),
    ),
    pytest.param(lambda request: MlflowRegistry(request.getfixturevalue("mlflow_file")), id="sqlite"),
]
RUN_A, RUN_B = "a" * 32, "b" * 32
SOURCE = "s3://models/churn"


@pytest.fixture(params=REGISTRIES)
def registry(request):
    return request.param(request)


@pytest.fixture
def model():
    """A name that no other test uses, with a blank, a dot and a letter that is not ASCII."""
    return f"churn v1.0 größe {uuid.uuid4().hex}"


def test_a_model_that_nobody_registered_has_no_versions_and_no_alias(registry, model):
    assert registry.versions(model) == []
    assert registry.version_of(model, alias="champion") is None
    registry.delete_alias(model, alias="champion")


def test_a_version_holds_what_it_was_made_from(registry, model):
    made = registry.create_version(model, run_id=RUN_A, source=SOURCE, tags={"digest": "sha256:1"})
    assert (made.model, made.version, made.run_id, made.source) == (model, "1", RUN_A, SOURCE)
    assert made.tags == {"digest": "sha256:1"}
    assert made.aliases == ()
    assert registry.version(model, "1") == made


def test_creating_twice_from_one_run_gives_one_version(registry, model):
    made = registry.create_version(model, run_id=RUN_A, source=SOURCE, tags={})
    assert registry.create_version(model, run_id=RUN_A, source=SOURCE, tags={}) == made
    assert [version.version for version in registry.versions(model)] == ["1"]


def test_a_call_that_died_before_it_wrote_the_tags_is_completed_by_the_next(registry, model):
    registry.create_version(model, run_id=RUN_A, source=SOURCE, tags={"kept": "1", "changed": "old"})
    again = registry.create_version(model, run_id=RUN_A, source=SOURCE, tags={"changed": "new", "added": "2"})
    assert again.tags == {"kept": "1", "changed": "new", "added": "2"}


def test_versions_come_newest_first(registry, model):
    for number in range(11):
        registry.create_version(model, run_id=f"{number:032x}", source=SOURCE, tags={})
    assert [version.version for version in registry.versions(model)] == [str(n) for n in range(11, 0, -1)]


def test_one_run_may_be_registered_under_two_names(registry, model):
    assert registry.create_version(model, run_id=RUN_A, source=SOURCE, tags={}).version == "1"
    assert registry.create_version(f"{model} b", run_id=RUN_A, source=SOURCE, tags={}).version == "1"


def test_an_alias_points_at_one_version_and_moves(registry, model):
    for run in (RUN_A, RUN_B):
        registry.create_version(model, run_id=run, source=SOURCE, tags={})
    registry.set_alias(model, alias="champion", version="1")
    registry.set_alias(model, alias="champion", version="1")
    registry.set_alias(model, alias="challenger", version="1")
    assert registry.version(model, "1").aliases == ("challenger", "champion")
    registry.set_alias(model, alias="champion", version="2")
    assert registry.version_of(model, alias="champion") == "2"
    assert [version.aliases for version in registry.versions(model)] == [("champion",), ("challenger",)]
    registry.delete_alias(model, alias="champion")
    registry.delete_alias(model, alias="champion")
    assert registry.version_of(model, alias="champion") is None
    assert registry.version_of(model, alias="challenger") == "1"


def test_tags_are_added_and_replaced(registry, model):
    registry.create_version(model, run_id=RUN_A, source=SOURCE, tags={"a": "1", "b": "1"})
    more = {"b": "2", "mlops.gate": '{"verdict": "it\'s passed"}'}
    registry.create_version(model, run_id=RUN_A, source=SOURCE, tags=more)
    assert registry.version(model, "1").tags == {"a": "1", "b": "2", "mlops.gate": '{"verdict": "it\'s passed"}'}


def test_a_version_says_what_it_is(registry, model):
    made = registry.create_version(model, run_id=RUN_A, source=SOURCE, tags={"a": "1"})
    assert made.description == ""
    for text in (
        "First.",
        'Größe *a* <script>"it\'s"</script>\n\nSecond.',
        'Größe *a* <script>"it\'s"</script>\n\nSecond.',
    ):
        registry.describe(model, "1", text)
        assert registry.version(model, "1").description == text
    assert registry.version(model, "1").tags == {"a": "1"}
    assert registry.create_version(model, run_id=RUN_A, source=SOURCE, tags={}).description == text


@pytest.mark.parametrize("version", ["7", "x", "", "-1", "1' or '1'='1"])
def test_an_unknown_version_is_named_with_those_that_exist(registry, model, version):
    registry.create_version(model, run_id=RUN_A, source=SOURCE, tags={})
    for ask in (
        lambda: registry.version(model, version),
        lambda: registry.set_alias(model, alias="champion", version=version),
        lambda: registry.describe(model, version, "text"),
    ):
        with pytest.raises(NotFoundError, match=r"Version .* was not found.*has versions 1\."):
            ask()
    assert registry.version_of(model, alias="champion") is None


def test_a_version_of_an_unknown_model_names_the_model(registry, model):
    with pytest.raises(NotFoundError, match=f"'1' was not found.*'{model}'"):
        registry.version(model, "1")


NAMES = ["", " ", "a/b", "a:b", "it's", 'a"b', "a`b", "a\\b", "a\nb", "../x", " a", "a" * 256, "x' or name != '"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_registry_can_hold_is_refused(registry, name):
    for ask in (
        lambda: registry.create_version(name, run_id=RUN_A, source=SOURCE, tags={}),
        lambda: registry.version(name, "1"),
        lambda: registry.versions(name),
        lambda: registry.version_of(name, alias="champion"),
        lambda: registry.set_alias(name, alias="champion", version="1"),
        lambda: registry.delete_alias(name, alias="champion"),
        lambda: registry.describe(name, "1", "text"),
    ):
        with pytest.raises(ConfigError, match="no name for a registered model"):
            ask()


@pytest.mark.parametrize("alias", ["", "latest", "LATEST", "v1", "V12", "a b", "a/b", "it's", "größe"])
def test_an_alias_that_no_registry_can_hold_is_refused(registry, model, alias):
    registry.create_version(model, run_id=RUN_A, source=SOURCE, tags={})
    for ask in (
        lambda: registry.version_of(model, alias=alias),
        lambda: registry.set_alias(model, alias=alias, version="1"),
        lambda: registry.delete_alias(model, alias=alias),
    ):
        with pytest.raises(ConfigError, match="is no alias"):
            ask()


@pytest.mark.parametrize("pair", list(itertools.permutations(["champion", "Champion"])))
def test_aliases_that_differ_in_case_are_two(registry, model, pair):
    registry.create_version(model, run_id=RUN_A, source=SOURCE, tags={})
    registry.set_alias(model, alias=pair[0], version="1")
    assert registry.version_of(model, alias=pair[1]) is None
