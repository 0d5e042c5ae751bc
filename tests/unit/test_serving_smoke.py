"""The probe of a model server: right answers pass, and each way to be wrong is refused in words."""

import http.server
import json
import math
import time

import pytest

from airflow_provider_mlops.errors import SmokeTestFailedError
from airflow_provider_mlops.serving.smoke import Golden, probe, wait_ready
from fakes.model_server import listening

GOLDEN = [Golden({"a": n}, n / 10) for n in range(10)]


class Server(http.server.BaseHTTPRequestHandler):
    """Predicts a tenth of ``a``. A test changes what it does."""

    def predict(self, rows):
        return 200, [row["a"] / 10 for row in rows]

    def malformed(self):
        return 400, "no"

    def do_GET(self):
        self.answer(200, "up")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            rows = json.loads(body)["dataframe_records"]
        except (ValueError, TypeError, KeyError):
            self.answer(*self.malformed())
        else:
            status, predicted = self.predict(rows)
            self.answer(status, json.dumps({"predictions": predicted}))

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def serving(**changes):
    return listening(type("Changed", (Server,), changes))


def test_right_answers_pass_and_are_timed():
    with serving() as url:
        assert wait_ready(lambda: url, within=60, alive=lambda: True)[1] < 60
        measured = probe(url, GOLDEN, tolerance=1e-6)
    assert measured.requests == 10
    assert 0 < measured.latency_p50_ms <= measured.latency_p95_ms


def test_the_latency_is_that_of_the_slowest_twentieth_without_the_warm_up():
    asked = []

    def predict(self, rows):
        asked.append(rows)
        time.sleep(0.5 if len(asked) <= 3 or rows[0]["a"] == 9 else 0)
        return 200, [row["a"] / 10 for row in rows]

    with serving(predict=predict) as url:
        measured = probe(url, GOLDEN, tolerance=1e-6)
    assert measured.latency_p50_ms < 500 <= measured.latency_p95_ms


WRONG = {
    "another prediction": (
        {"predict": lambda _, rows: (200, [row["a"] / 10 + (row["a"] == 7) * 0.01 for row in rows])},
        r"predicts 0\.71 where the offline prediction is 0\.7 \(tolerance 1e-06\)\. Its row: \{'a': 7\}",
    ),
    "a prediction of another kind": (
        {"predict": lambda _, rows: (200, ["high" for _ in rows])},
        "predicts 'high' where the offline prediction is 0",
    ),
    "an error": ({"predict": lambda *_: (500, "out of order")}, "golden request was answered 500: .*out of order"),
    "no predictions": ({"predict": lambda *_: (200, None)}, "answer is no list of predictions"),
    "malformed input is accepted": (
        {"malformed": lambda _: (200, "fine")},
        r"Malformed input b'\{' got 200 instead of 4xx",
    ),
    "malformed input is a crash": ({"malformed": lambda _: (500, "boom")}, "got 500 instead of 4xx: boom"),
    "not up any more": (
        {"do_GET": lambda self: self.answer(503, "")},
        "does not answer any more after malformed input",
    ),
}


@pytest.mark.parametrize(("changes", "says"), WRONG.values(), ids=WRONG)
def test_a_server_that_does_what_it_should_not_is_refused(changes, says):
    with serving(**changes) as url, pytest.raises(SmokeTestFailedError, match=says):
        probe(url, GOLDEN, tolerance=1e-6)


def test_a_difference_within_the_tolerance_is_none():
    with serving(predict=lambda _, rows: (200, [row["a"] / 10 + 1e-7 for row in rows])) as url:
        assert probe(url, GOLDEN, tolerance=1e-6).requests == 10


def answers(golden, predicted):
    with serving(predict=lambda *_: (200, [predicted])) as url:
        return probe(url, [golden], tolerance=1e-6).requests == 1


def test_probabilities_match_probabilities_and_the_likeliest_label():
    chances = Golden({"a": 1}, [0.2, 0.8], ("no", "yes"))
    assert answers(chances, [0.2, 0.8])
    assert answers(chances, {"0": 0.2, "1": 0.8})
    assert answers(chances, "yes")
    assert answers(Golden({"a": 1}, [0.5, 0.5], ("no", "yes")), "no")
    for golden, predicted in ((chances, "no"), (chances, [0.8]), (Golden({"a": 1}, [0.2, 0.8]), "yes")):
        with pytest.raises(SmokeTestFailedError, match="where the offline prediction is"):
            answers(golden, predicted)


def test_nothing_to_ask_is_refused():
    with pytest.raises(SmokeTestFailedError, match="no golden request"):
        probe("http://127.0.0.1:9", [], tolerance=1e-6)


@pytest.mark.parametrize(
    ("alive", "within", "says"),
    [(True, 0.5, "not ready within 0 s|not ready within 1 s"), (False, 60, "ended before it was ready")],
)
def test_a_server_that_does_not_come_up_is_refused_in_time(alive, within, says):
    began = time.monotonic()
    with pytest.raises(SmokeTestFailedError, match=says):
        wait_ready(lambda: "http://127.0.0.1:9", within=within, alive=lambda: alive)
    assert time.monotonic() - began < 30


def test_a_server_that_is_up_but_not_ready_is_waited_for():
    asked = []

    def do_GET(self):
        asked.append(self.path)
        self.answer(200 if len(asked) > 2 else 503, "")

    with serving(do_GET=do_GET) as url:
        _, waited = wait_ready(lambda: url, within=60, alive=lambda: True)
    assert 0.4 <= waited < math.inf
    assert asked == ["/ping"] * 3
