"""Exact shares, and counts in which a client's error counts once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_mlops.rollout.analysis import LATENCY_EDGES
from airflow_provider_mlops.serving.router import merge_metrics
from airflow_provider_mlops.serving.traffic import Shares, Traffic


@given(percent=st.integers(1, 99), requests=st.integers(1, 500))
def test_after_any_number_of_requests_the_canary_is_within_one_request_of_its_share(percent, requests):
    shares = Shares({"stable": 100 - percent, "canary": percent})
    picked = [shares.pick({"stable", "canary"}) for _ in range(requests)]
    assert abs(picked.count("canary") - requests * percent / 100) <= 1


def test_over_a_hundred_requests_the_shares_are_exact():
    shares = Shares({"1": 83, "2": 17})
    picked = [shares.pick({"1", "2"}) for _ in range(300)]
    assert (picked.count("1"), picked.count("2")) == (249, 51)


def test_a_version_that_comes_back_is_not_flooded():
    shares = Shares({"1": 50, "2": 50})
    assert {shares.pick({"1"}) for _ in range(100)} == {"1"}
    assert [shares.pick({"1", "2"}) for _ in range(6)].count("2") == 3


@pytest.mark.parametrize(
    ("weights", "ready", "expected"),
    [({}, {"1"}, None), ({"1": 0}, {"1"}, None), ({"1": 100}, set(), None), ({"1": 90, "2": 10}, {"2"}, "2")],
)
def test_only_what_is_ready_and_has_a_share_is_picked(weights, ready, expected):
    assert Shares(weights).pick(ready) == expected


def test_a_client_is_at_risk_until_its_first_error_from_any_version():
    traffic = Traffic()
    for version, client, failed in [
        ("1", "ann", False),
        ("2", "ann", True),
        ("2", "ann", True),
        ("1", "ann", True),
        ("1", "bob", False),
    ]:
        traffic.record(version, client=client, failed=failed, seconds=0.0101, at=0)
    one, two = traffic.counts("1"), traffic.counts("2")
    assert (one["requests"], one["errors"], one["exposure"], one["first_errors"]) == (3, 1, 2, 0)
    assert (two["requests"], two["errors"], two["exposure"], two["first_errors"]) == (2, 2, 1, 1)
    assert (one["clients"], one["clients_at_risk"], one["clients_with_error"]) == (2, 1, 1)
    assert (two["clients"], two["clients_at_risk"], two["clients_with_error"]) == (1, 0, 1)


@pytest.mark.parametrize(("seconds", "bin_"), [(0.0, 0), (0.001, 0), (0.0011, 1), (1e9, len(LATENCY_EDGES))])
def test_a_latency_falls_into_its_bin(seconds, bin_):
    traffic = Traffic()
    traffic.record("1", client="ann", failed=False, seconds=seconds, at=0)
    assert traffic.counts("1")["latency"][bin_] == 1


def test_warm_up_is_not_timed_and_a_restart_forgets():
    traffic = Traffic()
    traffic.record("1", client="ann", failed=True, seconds=None, at=0)
    assert sum(traffic.counts("1")["latency"]) == 0
    before = traffic.counter
    traffic.restart()
    assert traffic.counter != before
    assert traffic.counts("1")["requests"] == 0


def test_a_span_of_time_weighs_the_same_however_many_answers_ended_in_it():
    traffic = Traffic()
    slow, fast = len(LATENCY_EDGES), 0
    for at, version, seconds, times in [
        (0.0, "1", 0, 1),
        (0.5, "2", 0, 3),
        (0.9, "2", 99, 1),
        (1.0, "1", 0, 5),
        (1.9, "2", 99, 40),  # a stall is over
        (2.0, "2", 99, 7),  # nothing to compare it with
        (3.0, "1", 0, 1),
        (4.0, "1", 0, 1),
    ]:
        for _ in range(times):
            traffic.record(version, client="ann", failed=False, seconds=seconds, at=at)
    one, two = traffic.counts("1")["pace"], traffic.counts("2")["pace"]
    assert (one[fast], one[slow]) == (2, 0)
    assert (two[fast], two[slow]) == (0.75, 1.25)


def test_metrics_of_several_servers_become_one_text():
    one = '# HELP a_total Help.\n# TYPE a_total counter\na_total{v="1"} 2\n# TYPE b gauge\nb 1\n'
    two = '# HELP a_total Help.\n# TYPE a_total counter\na_total{v="1"} 3\na_total{v="2"} 1e+16\n'
    assert merge_metrics([one, two]) == (
        '# HELP a_total Help.\n# TYPE a_total counter\na_total{v="1"} 5\na_total{v="2"} 10000000000000000\n'
        "# TYPE b gauge\nb 1\n"
    )
