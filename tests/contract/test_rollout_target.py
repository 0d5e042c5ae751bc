"""What everything that serves models must do. A new target joins by one line in TARGETS."""

import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import served

from airflow_provider_mlops.adapters.rollout.local import LocalTarget
from airflow_provider_mlops.errors import ConflictError
from airflow_provider_mlops.rollout import Action, Role, RolloutPhase, RolloutPlan, RolloutState, drive
from fakes.target import MemoryTarget

NOW = datetime(2025, 3, 1, tzinfo=UTC)
ROWS = {"dataframe_split": {"columns": ["x", "y"], "data": [[1, 2]]}}


class Memory:
    """The fake, in which version "bad" fails."""

    patience = 0
    can_wait = staticmethod(lambda seconds: None)

    def __init__(self, tmp_path_factory):
        self.target = MemoryTarget(lambda version, number: (version == "bad", 10))

    def model(self, version):
        return version

    def ask(self, name, client="ann"):
        return self.target.ask(name, client)

    def close(self):
        pass


class Local:
    """Real processes, in which the model of version "bad" raises."""

    patience = 60
    can_wait = staticmethod(time.sleep)

    def __init__(self, tmp_path_factory):
        self.folder = tmp_path_factory.mktemp("local")
        self.target = LocalTarget(self.folder / "root")
        served.save_sklearn(self.folder / "1")
        served.save_python(self.folder / "2")
        served.save_python(self.folder / "bad", fails="True")
        self.client = httpx.Client(trust_env=False, timeout=30)

    def model(self, version):
        return str(self.folder / version)

    def ask(self, name, client="ann"):
        url = self.target.url(name)
        if url is None:
            return None, True
        try:
            answer = self.client.post(f"{url}/invocations", json=ROWS, headers={"X-Client-Id": client})
        except httpx.ConnectError:
            return None, True
        return answer.headers.get("x-model-version"), answer.status_code >= 500

    def close(self):
        self.client.close()
        self.target.stop()


TARGETS = [pytest.param(Memory, id="memory"), pytest.param(Local, id="local")]


@pytest.fixture(scope="module", params=TARGETS)
def world(request, tmp_path_factory):
    world = request.param(tmp_path_factory)
    yield world
    world.close()


@pytest.fixture
def name(world, request):
    yield (name := request.node.originalname)
    world.target.act(name, ())


def act(world, name, **percents):
    """Ask for versions and wait until they serve so; ``v1=90`` is version 1 with 90 %."""
    actions = tuple(
        Action(version.removeprefix("v"), world.model(version.removeprefix("v")), percent, Role.STABLE)
        for version, percent in percents.items()
    )
    world.target.act(name, actions)
    return until(
        world, name, lambda seen: {v: (a.percent, a.ready) for v, a in seen.arms.items()} == {
            action.version: (action.percent, True) for action in actions
        },
    )  # fmt: skip


def until(world, name, holds):
    deadline = time.monotonic() + world.patience
    while True:
        try:
            seen = world.target.observe(name)
            if holds(seen):
                return seen
        except Exception:
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            pytest.fail(f"not so after {world.patience} s: {seen}")
        time.sleep(0.1)


def state(**changes):
    return RolloutState(
        **{
            "name": "churn",
            "request": "run-1",
            "version": "2",
            "model": "/m/2",
            "stable_version": "1",
            "stable_model": "/m/1",
            "phase": RolloutPhase.STARTING,
            "started_at": NOW,
            "step_started_at": NOW,
            "reason": "started",
            "sentence": "",
            **changes,
        }
    )


def test_what_was_never_served_has_no_state_and_no_arms(world, name):
    assert world.target.read_state(name) == (None, "")
    assert world.target.observe(name).arms == {}


def test_a_state_is_read_as_it_was_written(world, name):
    token = world.target.write_state(name, state(), "")
    assert world.target.read_state(name) == (state(), token)
    token = world.target.write_state(name, state(weight=10), token)
    assert world.target.read_state(name) == (state(weight=10), token)


def test_who_writes_upon_an_old_state_is_refused(world, name):
    token = world.target.write_state(name, state(), "")
    world.target.write_state(name, state(weight=10), token)
    for old in (token, ""):
        with pytest.raises(ConflictError, match="was written by somebody else"):
            world.target.write_state(name, state(weight=20), old)
    assert world.target.read_state(name)[0] == state(weight=10)


def test_shares_are_exact_and_a_version_at_zero_gets_nothing(world, name):
    act(world, name, v1=100, v2=0)
    assert {world.ask(name)[0] for _ in range(20)} == {"1"}
    act(world, name, v1=90, v2=10)
    asked = [world.ask(name) for _ in range(100)]
    assert ([version for version, _ in asked].count("2"), [failed for _, failed in asked].count(True)) == (10, 0)
    seen = world.target.observe(name)
    assert (seen.arms["1"].counts.requests, seen.arms["2"].counts.requests) == (90, 10)


def test_asking_twice_is_asking_once(world, name):
    act(world, name, v1=100)
    world.ask(name)
    before = world.target.observe(name)
    assert act(world, name, v1=100) == before


def test_new_shares_begin_new_counts(world, name):
    before = act(world, name, v1=100)
    world.ask(name)
    after = act(world, name, v1=60, v2=40)
    assert after.counter != before.counter
    assert after.arms["1"].counts.requests == 0
    same = act(world, name, v1=60, v2=40, vbad=0)  # a version without a share changes no counts
    assert same.counter == after.counter


def test_errors_are_counted_per_answer_and_per_client(world, name):
    act(world, name, v1=50, vbad=50)
    for client in ("ann", "ann", "ann", "ann", "bob", "bob"):
        world.ask(name, client)
    seen = world.target.observe(name)
    good, bad = seen.arms["1"].counts, seen.arms["bad"].counts
    assert (good.requests, good.errors, good.first_errors) == (3, 0, 0)
    assert (bad.requests, bad.errors, bad.first_errors, bad.clients_with_error) == (3, 3, 2, 2)
    assert good.exposure + bad.exposure <= 4


def test_what_is_no_longer_wanted_is_gone_and_no_request_is_lost(world, name):
    act(world, name, v1=100)
    world.target.act(name, (Action("2", world.model("2"), 100, Role.STABLE),))
    answers = []

    def served_by_two(seen):
        answers.append(world.ask(name))
        return seen.arms.keys() == {"2"} and answers[-1][0] == "2"

    until(world, name, served_by_two)
    assert not any(failed for _, failed in answers)


def test_when_nothing_is_wanted_nothing_is_served(world, name):
    act(world, name, v1=100)
    act(world, name)
    assert world.ask(name) == (None, True)


@pytest.mark.parametrize(("version", "phase", "serves"), [("2", "promoted", "2"), ("bad", "rolled_back", "1")])
def test_a_canary_ends_as_it_deserves(world, name, version, phase, serves):
    asked = []

    class Clock:
        now = NOW

    def clock():
        return Clock.now

    def sleep(seconds):
        Clock.now += timedelta(seconds=seconds)
        world.can_wait(min(seconds, 0.1))
        asked.extend(world.ask(name, f"client-{k}") for k in range(60))

    def go(version, plan):
        return drive(
            world.target, name, plan, version=version, model=world.model(version), request=f"to-{version}",
            clock=clock, sleep=sleep, poll=timedelta(seconds=1),
        )  # fmt: skip

    patient = {"start_timeout": timedelta(hours=1), "bake": timedelta(seconds=2)}
    assert go("1", RolloutPlan(strategy="rolling", **patient)).phase is RolloutPhase.PROMOTED
    asked.clear()
    final = go(version, RolloutPlan(weights_percent=(50,), min_requests_per_step=200, **patient))
    assert final.phase == phase
    assert not [version for version, failed in asked if failed and version != "bad"]
    until(world, name, lambda seen: list(seen.arms) == [serves])
    assert world.ask(name) == (serves, False)
