"""Waiting for new data: the fingerprint of a listing, and the trigger that polls it."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import pkgutil
import threading
from types import SimpleNamespace
from typing import ClassVar

import fsspec
import pytest
from airflow.sdk.module_loading import import_string
from airflow.triggers.base import BaseTrigger

import airflow_provider_mlops.triggers
from airflow_provider_mlops.adapters.fingerprint import fingerprint
from airflow_provider_mlops.errors import ServiceError
from airflow_provider_mlops.triggers.data import NewDataTrigger
from airflow_provider_mlops.triggers.model import ModelVersionTrigger


def put(file, text="1"):
    """Let *file* be there whole at once: somebody may be looking."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(".draft")
    draft.write_text(text)
    draft.replace(file)


# fingerprint


def test_nothing_there_has_the_empty_fingerprint(tmp_path):
    assert fingerprint(str(tmp_path / "nothing")) == ""
    assert fingerprint(str(tmp_path)) == ""
    assert fingerprint(str(tmp_path / "*.csv")) == ""


def test_the_same_files_have_the_same_fingerprint(tmp_path):
    put(tmp_path / "a.csv")
    put(tmp_path / "below" / "b.csv")
    assert fingerprint(str(tmp_path)) == fingerprint(str(tmp_path))
    assert len(fingerprint(str(tmp_path))) == 64


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: put(folder / "b.csv"),
        lambda folder: put(folder / "below" / "b.csv"),
        lambda folder: put(folder / "a.csv", "22"),
        lambda folder: (folder / "a.csv").rename(folder / "c.csv"),
        lambda folder: (folder / "other.csv").unlink(),
        lambda folder: os.utime(folder / "a.csv", (1, 1)),
    ],
    ids=["new", "new below", "longer", "renamed", "gone", "written again"],
)
def test_every_change_of_the_files_changes_it(tmp_path, change):
    put(tmp_path / "a.csv")
    put(tmp_path / "other.csv")
    before = fingerprint(str(tmp_path))
    change(tmp_path)
    assert fingerprint(str(tmp_path)) != before


@pytest.mark.parametrize("name", [".a.csv.part", "_SUCCESS", "_temporary/b.csv", ".hidden/b.csv"])
def test_markers_and_half_written_files_do_not_count(tmp_path, name):
    put(tmp_path / "a.csv")
    before = fingerprint(str(tmp_path))
    put(tmp_path / name)
    assert fingerprint(str(tmp_path)) == before


def test_files_and_globs_are_paths_too(tmp_path):
    put(tmp_path / "a.csv")
    put(tmp_path / "b.txt")
    one, some = fingerprint(str(tmp_path / "a.csv")), fingerprint(str(tmp_path / "*.csv"))
    put(tmp_path / "b.txt", "22")
    assert (fingerprint(str(tmp_path / "a.csv")), fingerprint(str(tmp_path / "*.csv"))) == (one, some)
    put(tmp_path / "a.csv", "22")
    assert fingerprint(str(tmp_path / "a.csv")) != one
    assert fingerprint(str(tmp_path / "*.csv")) != some


def test_an_underscore_above_the_folder_hides_nothing(tmp_path):
    put(tmp_path / "_private" / ".cache" / "a.csv")
    assert fingerprint(str(tmp_path / "_private" / ".cache")) != ""


def test_urls_are_listed_through_fsspec():
    store = fsspec.filesystem("memory")
    store.pipe_file("/fingerprint/a.csv", b"1")
    before = fingerprint("memory://fingerprint")
    store.pipe_file("/fingerprint/b.csv", b"1")
    assert before != fingerprint("memory://fingerprint") != ""


def test_a_store_that_cannot_be_listed_is_named():
    with pytest.raises(ServiceError, match=r"nosuchstore://x could not be listed: ValueError"):
        fingerprint("nosuchstore://x")


# NewDataTrigger


def waiting(path, seen=""):
    return NewDataTrigger(path=str(path), seen=seen, poll_interval=0.01, minimum_wait=0.0, patience=3)


def deferred(trigger):
    """As the triggerer does for a deferred task."""
    trigger.task_instance = SimpleNamespace(task_id="wait")
    return trigger


async def drain(trigger, limit=10):
    events = []
    async for event in trigger.run():
        events.append(event.payload)
        if len(events) == limit:
            break
    return events


PATIENCE = 60  # seconds


def run(trigger, limit=10, timeout=PATIENCE):
    async def bounded():
        return await asyncio.wait_for(drain(trigger, limit), timeout)

    return asyncio.run(bounded())


def test_new_data_fires_once_and_says_what_was_seen(tmp_path):
    put(tmp_path / "a.csv")
    assert run(deferred(waiting(tmp_path))) == [{"path": str(tmp_path), "fingerprint": fingerprint(str(tmp_path))}]


def test_known_data_does_not_fire_until_it_changes(tmp_path):
    put(tmp_path / "a.csv")
    trigger = deferred(waiting(tmp_path, seen=fingerprint(str(tmp_path))))

    async def scenario():
        task = asyncio.create_task(drain(trigger))
        await asyncio.sleep(0.2)
        assert not task.done()
        put(tmp_path / "b.csv")
        return await asyncio.wait_for(task, PATIENCE)

    (event,) = asyncio.run(scenario())
    assert event["fingerprint"] == fingerprint(str(tmp_path))


def test_an_empty_place_is_no_new_data(tmp_path):
    trigger = deferred(waiting(tmp_path / "later", seen="known"))
    with pytest.raises(TimeoutError):
        run(trigger, timeout=0.3)


def test_a_watcher_goes_on_from_what_it_has_reported(tmp_path):
    put(tmp_path / "a.csv")
    trigger = waiting(tmp_path)

    async def scenario():
        stream = trigger.run()
        first = (await anext(stream)).payload
        following = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.2)
        assert not following.done()
        put(tmp_path / "b.csv")
        return first, (await asyncio.wait_for(following, PATIENCE)).payload

    first, second = asyncio.run(scenario())
    assert first["fingerprint"] != second["fingerprint"]


class Store:
    """The part of an asset's state store that a watcher uses."""

    def __init__(self):
        self.values = {}

    async def aget(self, key, default=None):
        return self.values.get(key, default)

    async def aset(self, key, value):
        self.values[key] = value


class SharedStore(Store):
    """What Airflow gives to a trigger that watches for several assets: no single store."""

    async def aget(self, key, default=None):
        raise ValueError("2 assets")

    async def aset(self, key, value):
        raise ValueError("2 assets")


def watcher(path, store):
    trigger = waiting(path)
    trigger.asset_state_store = store
    return trigger


def test_a_restarted_watcher_does_not_report_again_what_it_has_reported(tmp_path):
    put(tmp_path / "a.csv")
    store = Store()

    async def first_life():
        stream = watcher(tmp_path, store).run()
        await anext(stream)
        going_on = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.2)
        going_on.cancel()

    asyncio.run(first_life())
    with pytest.raises(TimeoutError):
        run(watcher(tmp_path, store), timeout=0.3)
    put(tmp_path / "b.csv")
    assert len(run(watcher(tmp_path, store), limit=1)) == 1


def test_a_watcher_of_several_assets_works_without_memory(tmp_path):
    put(tmp_path / "a.csv")
    assert len(run(watcher(tmp_path, SharedStore()), limit=1)) == 1


def test_failed_listings_are_borne_a_while_and_then_told():
    (event,) = run(deferred(waiting("nosuchstore://x")))
    assert event["path"] == "nosuchstore://x"
    assert "could not be listed" in event["error"]
    assert "fingerprint" not in event


def test_a_watcher_never_reports_a_failure_as_if_it_were_data():
    with pytest.raises(TimeoutError):
        run(waiting("nosuchstore://x"), timeout=0.3)


class SlowStore(fsspec.AbstractFileSystem):
    """A store whose listing takes until somebody else says that it is over."""

    protocol = "slowstore"
    cachable = False
    asked, over = threading.Event(), threading.Event()
    told: ClassVar[list[bool]] = []

    def ls(self, path, detail=True, **kwargs):
        self.asked.set()
        self.told.append(self.over.wait(PATIENCE))
        return [{"name": "folder/a.csv", "size": 1, "type": "file"}]


def test_the_event_loop_stays_free_while_a_slow_store_is_listed():
    fsspec.register_implementation("slowstore", SlowStore, clobber=True)

    async def scenario():
        task = asyncio.create_task(drain(deferred(waiting("slowstore://folder"))))
        await asyncio.to_thread(SlowStore.asked.wait, PATIENCE)
        SlowStore.over.set()  # by the event loop, which the listing therefore must not hold
        return await task

    assert "fingerprint" in asyncio.run(scenario())[0]
    assert SlowStore.told == [True]


def test_it_survives_being_written_down_and_made_anew(tmp_path):
    trigger = NewDataTrigger(path=str(tmp_path), seen="x", poll_interval=7.0, minimum_wait=20.0, patience=4)
    path, arguments = trigger.serialize()
    again = import_string(path)(**arguments)
    assert type(again) is NewDataTrigger
    assert again.serialize() == (path, arguments)
    assert set(arguments) == set(inspect.signature(NewDataTrigger.__init__).parameters) - {"self"}


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="unknown"):
        NewDataTrigger(path="x", unknown=1)


# Every trigger of the package


class Clock(asyncio.SelectorEventLoop):
    """A loop on which long sleeps take no time: its clock is turned forward instead."""

    turned = 0.0

    def time(self):
        return super().time() + self.turned

    def call_at(self, when, callback, *args, **kwargs):
        if (wait := when - self.time()) > 1:
            self.turned += wait
        return super().call_at(when, callback, *args, **kwargs)


def trigger_classes():
    package = airflow_provider_mlops.triggers
    modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    return [
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, BaseTrigger) and kind.__module__ == module.__name__
    ]


# Arguments with which a trigger has something to report at once. A new trigger joins by one line.
AT_ONCE = {
    NewDataTrigger: lambda folder: {"path": str(folder)},
    # A connection that no trigger can use is told without a single request.
    ModelVersionTrigger: lambda folder: {"model": "churn"},
}


@pytest.mark.parametrize("kind", trigger_classes(), ids=lambda kind: kind.__name__)
def test_no_trigger_fires_within_15_seconds(kind, tmp_path, monkeypatch):
    """Airflow 3.2 and 3.3 fail healthy tasks whose trigger fires within a few seconds."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", '{"conn_type": "mlflow", "host": "sqlite:////nowhere/m.db"}')
    put(tmp_path / "a.csv")
    trigger = deferred(kind(**AT_ONCE[kind](tmp_path)))
    with asyncio.Runner(loop_factory=Clock) as runner:
        begin = runner.get_loop().time()
        assert len(runner.run(drain(trigger))) == 1
        assert runner.get_loop().time() - begin >= 15
