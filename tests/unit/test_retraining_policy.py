"""When a training starts by itself, and what keeps it from starting."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.errors import ConfigError, ConflictError, DataError
from airflow_provider_mlops.journal import Record, append_next, kinds, payloads
from airflow_provider_mlops.retraining import (
    Action,
    Outcome,
    RetrainPolicy,
    Trigger,
    Verdict,
    close,
    decide,
    history,
    judge,
    request,
    request_key,
)
from fakes.journal import MemoryJournal

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
EVERYTHING = ("schedule", "new_data", "drift", "performance_drop")

HARM = [
    # input, predictions, estimated, realized, baking -> action, reason
    ("no_drift", False, "ok", "ok", False, "none", "no_harm"),
    ("no_drift", None, "unknown", "unknown", False, "none", "no_harm"),
    ("insufficient", None, "unknown", "unknown", False, "none", "insufficient"),
    ("no_data", None, "unknown", "unknown", False, "none", "no_data"),
    ("drift", False, "ok", "unknown", False, "explain", "drift_only"),
    ("drift", None, "unknown", "ok", False, "explain", "drift_only"),
    ("drift", True, "ok", "unknown", False, "investigate", "predictions_moved"),
    ("no_drift", True, "unknown", "unknown", False, "investigate", "predictions_moved"),
    ("no_drift", False, "drop", "ok", False, "investigate", "estimate_wrong"),
    ("no_drift", False, "drop", "unknown", False, "retrain", "performance_drop"),
    ("insufficient", None, "drop", "unknown", False, "retrain", "performance_drop"),
    ("drift", True, "drop", "unknown", True, "retrain", "performance_drop"),
    ("no_drift", False, "ok", "drop", False, "retrain", "concept_drift"),
    ("no_drift", True, "ok", "drop", False, "retrain", "performance_drop"),
    ("drift", True, "unknown", "drop", False, "retrain", "performance_drop"),
    ("drift", True, "ok", "drop", True, "roll_back", "roll_back_first"),
    ("no_drift", False, "ok", "drop", True, "roll_back", "roll_back_first"),
    ("bad_data", True, "drop", "drop", True, "quarantine", "bad_data"),
]


@pytest.mark.parametrize(("verdict", "moved", "estimated", "realized", "baking", "action", "reason"), HARM)
def test_drift_is_not_harm(verdict, moved, estimated, realized, baking, action, reason):
    harm = judge(verdict, prediction_drift=moved, estimated=estimated, realized=realized, baking=baking)
    assert (harm.action, harm.reason) == (Action(action), reason)
    assert harm.sentence.endswith(".")


class Story:
    """A model's journal, written as a story: each verb takes place *after* the one before."""

    def __init__(self):
        self.journal = MemoryJournal()
        self.now = START
        self.windows = 0

    def wait(self, time):
        self.now += time
        return self

    def write(self, kind, payload):
        append_next(self.journal, "model/m", Record(kind, self.now, "me", payload))
        return self

    def check(self, verdict="no_drift", *, window=None, **more):
        self.windows += 1
        payload = payloads.drift_checked(
            window=window or f"w{self.windows}", verdict=verdict, reason=verdict, sentence="", **more
        )
        return self.write(kinds.DRIFT_CHECKED, payload)

    def started(self, key="k", run="r"):
        return self.write(kinds.TRAINING_STARTED, payloads.training_started(key=key, run_id=run))

    def finished(self, key="k", run="r"):
        return self.write(kinds.TRAINING_FINISHED, payloads.training_finished(key=key, run_id=run))

    def failed(self, key="k", run="r"):
        return self.write(
            kinds.TRAINING_FAILED, payloads.training_failed(key=key, run_id=run, reason="failed", sentence="")
        )

    def gate(self, verdict, run="r"):
        payload = payloads.gate_decided(verdict=verdict, reason="", sentence="", digest="d", run_id=run, champion=None)
        return self.write(kinds.GATE_DECIDED, payload)

    def cycle(self, n, verdict="passed"):
        """One whole training, an hour long, ten days after the one before."""
        self.wait(10 * DAY).started(f"k{n}", f"r{n}").wait(HOUR)
        if verdict == "failed":
            return self.failed(f"k{n}", f"r{n}")
        return self.finished(f"k{n}", f"r{n}").gate(verdict, f"r{n}")

    def quarantine(self, digest):
        payload = payloads.data_quarantined(data_digest=digest, reason="type_changed", sentence="")
        return self.write(kinds.DATA_QUARANTINED, payload)

    def promoted(self):
        payload = payloads.promotion_done(alias="champion", version="2", previous="1", token=1, rollback=False)
        return self.write(kinds.PROMOTION_DONE, payload)

    def deploying(self):
        payload = payloads.rollout_started(name="m", version="2", stable_version="1", strategy="canary")
        return self.write(kinds.ROLLOUT_STARTED, payload)

    def deployed(self):
        payload = payloads.rollout_finished(name="m", version="2", phase="promoted", reason="", sentence="")
        return self.write(kinds.ROLLOUT_FINISHED, payload)

    def decide(self, trigger="monitor", key="new", owner="run", digest=None, **policy):
        return decide(
            RetrainPolicy(**{"when": EVERYTHING, **policy}),
            self.journal.read("model/m"),
            self.now,
            key,
            trigger=Trigger(trigger),
            owner=owner,
            data_digest=digest,
        )

    def request(self, trigger="monitor", key="new", owner="run", binding=True, **policy):
        return request(
            self.journal,
            RetrainPolicy(**{"when": EVERYTHING, **policy}),
            "m",
            key=key,
            trigger=Trigger(trigger),
            owner=owner,
            actor="me",
            clock=lambda: self.now,
            binding=binding,
        )


DRIFT = {"verdict": "drift"}
LABELS = {"realized_performance": "drop"}
ESTIMATE = {"estimated_performance": "drop"}

DECISIONS = [
    # name, story, arguments of decide, verdict, reason, words of the sentence
    ("nothing was judged", lambda s: s, {}, "wait", "no_evidence", "No window"),
    ("all is well", lambda s: s.check().check(), {}, "wait", "no_harm", "Nothing moved"),
    ("too few rows", lambda s: s.check("insufficient"), {}, "wait", "insufficient", "too little data"),
    ("one window with drift", lambda s: s.check(**DRIFT), {}, "wait", "hysteresis", "1 of the last 1 windows"),
    ("two of two", lambda s: s.check(**DRIFT).check(**DRIFT), {}, "train", "drift", "holds 'drift'"),
    ("two of three", lambda s: s.check(**DRIFT).check().check(**DRIFT), {}, "train", "drift", ""),
    (
        "two of four",
        lambda s: s.check(**DRIFT).check().check().check(**DRIFT),
        {},
        "wait",
        "hysteresis",
        "of the last 3",
    ),
    ("drift, and it went away", lambda s: s.check(**DRIFT).check(**DRIFT).check(), {}, "wait", "no_harm", ""),
    (
        "the same window judged twice",
        lambda s: s.check(window="a", **DRIFT).check(window="a", **DRIFT),
        {},
        "wait",
        "hysteresis",
        "1 of the last 1 windows",
    ),
    (
        "drift alone, not asked for",
        lambda s: s.check(**DRIFT).check(**DRIFT),
        {"when": ["performance_drop"]},
        "wait",
        "drift_only",
        "no drop of performance is known",
    ),
    (
        "drift whose quiet variation is unknown",
        lambda s: s.check(**DRIFT, variation="unknown").check(**DRIFT, variation="unknown"),
        {},
        "wait",
        "variation_unknown",
        "no evidence",
    ),
    (
        "a drop with labels does not wait",
        lambda s: s.check(**LABELS),
        {},
        "train",
        "performance_drop",
        "fell by more",
    ),
    (
        "a drop that nothing foretold",
        lambda s: s.check(**LABELS, estimated_performance="ok"),
        {},
        "train",
        "concept_drift",
        "the concept changed",
    ),
    ("an estimated drop waits", lambda s: s.check(**ESTIMATE), {}, "wait", "hysteresis", ""),
    (
        "two estimated drops",
        lambda s: s.check(**ESTIMATE).check(**ESTIMATE),
        {},
        "train",
        "performance_drop",
        "estimated",
    ),
    (
        "a drop, not asked for",
        lambda s: s.check(**LABELS),
        {"when": ["schedule", "drift"]},
        "blocked",
        "not_in_policy",
        "does not hold 'performance_drop'",
    ),
    (
        "bad data after drift",
        lambda s: s.check(**DRIFT).check(**DRIFT).check("bad_data", **LABELS),
        {},
        "blocked",
        "bad_data",
        "broke its contract",
    ),
    (
        "a drop while a deployment bakes",
        lambda s: s.deploying().check(**LABELS),
        {},
        "blocked",
        "roll_back_first",
        "roll it back",
    ),
    (
        "a drop after a deployment",
        lambda s: s.deploying().deployed().check(**LABELS),
        {},
        "train",
        "performance_drop",
        "",
    ),
    (
        "drift from before a promotion",
        lambda s: s.check(**DRIFT).check(**DRIFT).promoted(),
        {},
        "wait",
        "no_evidence",
        "",
    ),
    (
        "drift that a training answered",
        lambda s: s.check(**DRIFT).check(**DRIFT).cycle(1, "refused").wait(10 * DAY),
        {},
        "wait",
        "no_evidence",
        "",
    ),
    ("the schedule", lambda s: s, {"trigger": "schedule"}, "train", "schedule", "by the schedule"),
    ("new data", lambda s: s, {"trigger": "new_data"}, "train", "new_data", "new data"),
    (
        "a schedule not asked for",
        lambda s: s,
        {"trigger": "schedule", "when": ["drift"]},
        "blocked",
        "not_in_policy",
        "does not hold 'schedule'",
    ),
    ("a training runs", lambda s: s.started(), {"trigger": "schedule"}, "wait", "running", "running since 2026-03-01"),
    ("a training runs, by hand", lambda s: s.started(), {"trigger": "manual"}, "wait", "running", ""),
    (
        "a training whose end is overdue",
        lambda s: s.started().wait(6 * DAY),
        {"trigger": "schedule"},
        "train",
        "schedule",
        "",
    ),
    (
        "cooldown",
        lambda s: s.started().wait(DAY).finished().wait(2 * DAY),
        {"trigger": "schedule"},
        "wait",
        "cooldown",
        "ended 2026-03-02.*lasts until 2026-03-05",
    ),
    (
        "cooldown over",
        lambda s: s.started().wait(DAY).finished().wait(3 * DAY),
        {"trigger": "schedule"},
        "train",
        "schedule",
        "",
    ),
    ("cooldown, by hand", lambda s: s.started().finished(), {"trigger": "manual"}, "train", "manual", "A person"),
    (
        "budget spent",
        lambda s: s.cycle(1).cycle(2).wait(4 * DAY),
        {"trigger": "schedule", "max_runs_per_30_days": 2},
        "wait",
        "budget",
        "2 trainings in 30 days, 2 are allowed. The next is free 2026-04-10",
    ),
    (
        "budget free again",
        lambda s: s.cycle(1).cycle(2).wait(20 * DAY),
        {"trigger": "schedule", "max_runs_per_30_days": 2},
        "train",
        "schedule",
        "",
    ),
    (
        "three setbacks of each kind",
        lambda s: s.cycle(1, "refused").cycle(2, "failed").cycle(3, "underpowered").wait(9 * DAY),
        {"trigger": "schedule"},
        "blocked",
        "breaker_open",
        "The last 3 trainings were refused or failed",
    ),
    (
        "setbacks with a success between",
        lambda s: s.cycle(1, "refused").cycle(2, "passed").cycle(3, "failed").cycle(4, "failed").wait(9 * DAY),
        {"trigger": "schedule"},
        "train",
        "schedule",
        "",
    ),
    (
        "an open breaker, by hand",
        lambda s: s.cycle(1, "refused").cycle(2, "failed").cycle(3, "failed"),
        {"trigger": "manual"},
        "train",
        "manual",
        "",
    ),
    (
        "the same data and code",
        lambda s: s.cycle(1),
        {"key": "k1", "trigger": "schedule"},
        "blocked",
        "already_trained",
        "run r1",
    ),
    ("the same, by hand", lambda s: s.cycle(1), {"key": "k1", "trigger": "manual"}, "blocked", "already_trained", ""),
    (
        "the same that failed",
        lambda s: s.cycle(1, "failed").wait(9 * DAY),
        {"key": "k1", "trigger": "schedule"},
        "blocked",
        "already_failed",
        "A person may",
    ),
    (
        "the same that failed, by hand",
        lambda s: s.cycle(1, "failed"),
        {"key": "k1", "trigger": "manual"},
        "train",
        "manual",
        "",
    ),
    (
        "quarantined data",
        lambda s: s.quarantine("sha256:a"),
        {"trigger": "manual", "digest": "sha256:a"},
        "blocked",
        "bad_data",
        "Data sha256:a broke",
    ),
    (
        "other data is quarantined",
        lambda s: s.quarantine("sha256:a"),
        {"trigger": "schedule", "digest": "x"},
        "train",
        "schedule",
        "",
    ),
]


@pytest.mark.parametrize(
    ("story", "arguments", "verdict", "reason", "says"),
    [row[1:] for row in DECISIONS],
    ids=[row[0] for row in DECISIONS],
)
def test_a_decision_follows_from_what_happened(story, arguments, verdict, reason, says):
    decision = story(Story()).decide(**arguments)
    assert (decision.verdict, decision.reason) == (Verdict(verdict), reason)
    assert re.search(says, decision.sentence), decision.sentence


@pytest.mark.parametrize("windows", [1, 2, 3])
def test_the_number_of_windows_is_the_policys(windows):
    story = Story()
    for _ in range(windows):
        assert not story.decide(violating_windows=windows).verdict.is_yes
        story.check("drift")
    assert story.decide(violating_windows=windows).verdict.is_yes


def test_the_cooldown_is_the_policys():
    story = Story().started().finished().wait(HOUR)
    assert story.decide("schedule").reason == "cooldown"
    assert story.decide("schedule", cooldown=HOUR).reason == "schedule"


def test_the_lease_is_the_policys():
    story = Story().started().wait(2 * HOUR)
    assert story.decide("schedule").reason == "running"
    assert story.decide("schedule", lease=HOUR, cooldown=HOUR).reason == "schedule"


def test_a_request_is_granted_once_and_again_only_to_its_owner():
    story = Story()
    assert story.request("schedule", owner="dag run 1").verdict is Verdict.TRAIN
    again = story.request("schedule", owner="dag run 1")
    assert (again.verdict, again.granted_before) == (Verdict.TRAIN, True)
    assert story.request("schedule", owner="dag run 2").reason == "running"
    assert story.request("schedule", key="other", owner="dag run 1").reason == "running"
    decided = [entry.record.payload["verdict"] for entry in story.journal.read("model/m")]
    assert decided == ["train", "wait", "wait"]


def test_nobody_in_particular_is_granted_a_request_once():
    story = Story()
    assert story.request("schedule", owner="").verdict is Verdict.TRAIN
    assert story.request("schedule", owner="").reason == "running"


def test_what_was_turned_away_while_a_training_ran_is_looked_at_when_it_ends():
    story = Story().started()
    story.request("schedule")
    past = history(story.journal.read("model/m"), story.now, lease=DAY)
    assert past.follow_up
    story.finished().wait(5 * DAY).request("schedule")
    assert not history(story.journal.read("model/m"), story.now, lease=DAY).follow_up


def test_a_decision_that_is_only_noted_starts_and_counts_nothing():
    story = Story()
    for _ in range(5):
        assert story.request("schedule", binding=False).verdict is Verdict.TRAIN
    assert history(story.journal.read("model/m"), story.now, lease=DAY).attempts == ()


def test_a_failed_run_that_airflow_retries_is_one_training():
    story = Story()
    story.request("schedule", key="k")
    story.started(run="r1").failed(run="r1").wait(HOUR).started(run="r2").wait(HOUR).finished(run="r2").gate(
        "passed", "r2"
    )
    (attempt,) = history(story.journal.read("model/m"), story.now, lease=DAY).attempts
    assert (attempt.outcome, attempt.run_id, attempt.owner) == (Outcome.PASSED, "r2", "run")


def test_an_end_without_a_beginning_counts():
    story = Story().failed(run=None)
    assert story.decide("schedule").reason == "cooldown"


def test_a_gate_for_an_unknown_run_is_no_training():
    assert history(Story().gate("passed").journal.read("model/m"), START, lease=DAY).attempts == ()


def test_a_record_without_what_its_kind_needs_is_named():
    story = Story().write(kinds.DRIFT_CHECKED, {"verdict": "drift"})
    with pytest.raises(DataError, match=r"Entry 1 of model/m cannot be read as 'drift\.checked'"):
        story.decide()


def test_a_journal_that_is_always_busy_is_a_conflict():
    story = Story()

    class Busy(MemoryJournal):
        def append(self, stream, expected, record):
            raise ConflictError("busy")

    story.journal = Busy()
    with pytest.raises(ConflictError, match=r"200 attempts to append 'retraining\.decided' lost"):
        story.request("schedule")


def test_a_decision_says_what_it_rests_on():
    decision = Story().check("drift").request()
    assert decision.to_payload() == {
        "verdict": "wait",
        "reason": "hysteresis",
        "sentence": "1 of the last 1 windows call for a training; it takes 2 of 3.",
        "numbers": {"violating": 1, "windows": 1, "needed": 2},
        "key": "new",
        "trigger": "monitor",
        "owner": "run",
        "binding": True,
    }


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"when": ["drfit"]}, "'drfit' starts no training.*Did you mean 'drift'"),
        ({"violating_windows": 4, "of_last": 3}, "4 violating windows of the last 3"),
        ({"violating_windows": 0}, "0 violating windows"),
        ({"max_runs_per_30_days": 0}, "max_runs_per_30_days must be 1 or more"),
        ({"breaker_after": 0}, "breaker_after must be 1 or more"),
        ({"cooldown": -DAY}, "cannot be"),
        ({"lease": timedelta(0)}, "cannot be"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(policy, says):
    with pytest.raises(ConfigError, match=says):
        RetrainPolicy(**policy)


def test_a_key_changes_with_everything_that_is_trained_on():
    base = ("m", "data", "code", {"depth": 6})
    others = [("n", *base[1:]), ("m", "x", *base[2:]), ("m", "data", "x", base[3]), (*base[:3], {"depth": 7})]
    assert len({request_key(*base), *(request_key(*other) for other in others)}) == 5
    assert request_key("m", "data", "code", {"a": 1, "b": 2}) == request_key("m", "data", "code", {"b": 2, "a": 1})


def closing(story, key="k", owner="run 1"):
    return close(
        story.journal, "m", key=key, owner=owner, actor="me", clock=lambda: story.now, sentence="It did not train."
    )


@pytest.mark.parametrize(("key", "owner"), [("k", "train run 7"), ("", "run 1")])
def test_a_grant_that_is_given_back_keeps_nobody_waiting(key, owner):
    story = Story()
    story.request("schedule", "k", "run 1")
    assert story.request("schedule", "other", "run 2").reason == "running"
    assert closing(story, key, owner) == "k"
    record = story.journal.read("model/m")[-1].record
    assert (record.kind, record.payload["reason"], record.payload["run_id"]) == ("training.failed", "abandoned", None)
    assert closing(story, key, owner) is None  # once is enough
    assert story.request("schedule", "other", "run 2").reason == "cooldown"
    assert story.wait(30 * DAY).request("schedule", "other", "run 2").verdict is Verdict.TRAIN
    assert story.wait(30 * DAY).request("schedule", "k", "run 3").reason != "granted_before"


@pytest.mark.parametrize("outcome", ["finished", "failed"])
def test_a_training_with_an_end_is_not_ended_again(outcome):
    story = Story()
    story.request("schedule", "k", "run 1")
    getattr(story.started(), outcome)()
    before = story.journal.read("model/m")
    assert closing(story) is None
    assert story.journal.read("model/m") == before


def test_a_training_that_was_killed_for_good_is_ended_with_its_run():
    story = Story()
    story.request("schedule", "k", "run 1")
    story.started(run="r9")
    assert closing(story) == "k"
    assert story.journal.read("model/m")[-1].record.payload["run_id"] == "r9"


def test_what_others_were_granted_stays_theirs():
    story = Story()
    story.request("schedule", "k", "run 1")
    assert closing(story, "another key", "run 2") is None
    assert closing(story, "", "run 2") is None


EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("check"), st.sampled_from(["drift", "no_drift", "bad_data"]), st.sampled_from(["ok", "drop"])
        ),
        st.tuples(st.just("wait"), st.sampled_from([1, 12, 30, 100, 400])),
        st.tuples(
            st.just("request"),
            st.sampled_from(["schedule", "new_data", "monitor", "manual"]),
            st.sampled_from("abcdefgh"),
            st.sampled_from(["run 1", "run 2"]),
        ),
        st.tuples(st.just("start")),
        st.tuples(st.just("end"), st.sampled_from(["passed", "refused", "failed"])),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(EVENTS, st.integers(1, 3), st.sampled_from([0, 1, 3]))
def test_whatever_happens_no_training_breaks_the_policy(events, budget, cooldown):
    """Checked against a book of our own, which knows nothing of the fold."""
    story, book = Story(), []
    policy = {"max_runs_per_30_days": budget, "cooldown": cooldown * DAY, "lease": 5 * DAY}
    for name, *values in events:
        running = next((row for row in book if row["end"] is None), None)
        if running and story.now >= running["begin"] + 5 * DAY:
            running["end"], running["how"] = running["begin"] + 5 * DAY, "lost"
            running = None
        if name == "check":
            story.check(values[0], realized_performance=values[1])
        elif name == "wait":
            story.wait(values[0] * HOUR)
        elif name == "start" and running:
            running["begin"] = story.now
            story.started(running["key"], running["run"])
        elif name == "end" and running:
            running["end"], running["how"] = story.now, values[0]
            if values[0] == "failed":
                story.failed(running["key"], running["run"])
            else:
                story.finished(running["key"], running["run"]).gate(values[0], running["run"])
        elif name == "request":
            trigger, key, owner = values
            decision = story.request(trigger, key, owner, **policy)
            if decision.verdict is not Verdict.TRAIN or decision.granted_before:
                continue
            assert running is None, "two trainings at once"
            same = [row for row in book if row["key"] == key]
            if trigger == "manual":
                assert all(row["how"] in ("failed", "lost") for row in same), "a key was trained twice"
            else:
                assert same == [], "a key was trained twice"
                assert all(story.now >= row["end"] + cooldown * DAY for row in book), "within the cooldown"
                assert sum(row["asked"] > story.now - 30 * DAY for row in book) < budget, "beyond the budget"
            number = len(book)
            book.append(
                {"key": key, "run": f"r{number}", "asked": story.now, "begin": story.now, "end": None, "how": None}
            )


def test_a_weekly_schedule_is_never_kept_waiting_by_the_defaults():
    story, now = Story(), START
    for week in range(12):
        story.now = now = START + 7 * week * DAY
        asked = decide(RetrainPolicy(), story.journal.read("model/m"), now, f"k{week}", trigger=Trigger.SCHEDULE)
        assert asked.verdict is Verdict.TRAIN
        story.write(kinds.RETRAINING_DECIDED, asked.to_payload())
        story.started(f"k{week}", f"r{week}").wait(HOUR).finished(f"k{week}", f"r{week}").gate("passed", f"r{week}")
