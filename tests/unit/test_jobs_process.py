"""What the process backend adds to the contract: whose environment a job sees, and that nothing outlives its submitter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_mlops.adapters.jobs import keeper
from airflow_provider_mlops.adapters.jobs.subprocess import ProcessBackend
from airflow_provider_mlops.errors import ConfigError, ServiceError
from airflow_provider_mlops.hooks.jobs import end_job, run_job
from airflow_provider_mlops.jobs import JobPhase, JobSpec


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", textwrap.dedent(code))


PATIENCE = 60.0  # seconds; a moment on an idle machine. What is waited for here runs for minutes if nobody ends it.


def settled(backend, name):
    deadline = time.monotonic() + PATIENCE
    while not (status := backend.status(name)).phase.is_final:
        assert time.monotonic() < deadline, status
        time.sleep(0.02)
    return status


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it ends just while it is read
        return False


@pytest.fixture
def backend(tmp_path):
    return ProcessBackend(tmp_path / "jobs", grace=timedelta(seconds=0.5))


def test_a_job_sees_its_own_environment_and_nothing_of_the_worker(backend, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "worker-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "worker-secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("TZ", "UTC")
    command = python("import json, os; print(json.dumps(dict(os.environ)))")
    backend.submit(JobSpec("env", command, {"MLOPS_SEED": "1"}, {"TOKEN": "s3cret"}))
    settled(backend, "env")
    seen = json.loads(backend.logs("env")[0])
    assert {"MLOPS_SEED": "1", "TOKEN": "s3cret", "PATH": os.environ["PATH"], "TZ": "UTC"}.items() <= seen.items()
    assert seen.keys() <= {"MLOPS_SEED", "TOKEN", "PATH", "HOME", "LANG", "TZ", "TMPDIR", "LC_CTYPE"}


def test_a_secret_is_neither_written_down_nor_shown(backend, tmp_path):
    spec = JobSpec("secret", python("import os; print(len(os.environ['TOKEN']))"), {}, {"TOKEN": "s3cret-token"})
    assert "s3cret-token" not in repr(spec)
    backend.submit(spec)
    settled(backend, "secret")
    written = b"".join(path.read_bytes() for path in (tmp_path / "jobs").rglob("*") if path.is_file())
    assert b"s3cret-token" not in written
    assert backend.logs("secret")[0] == "12\n"


def test_the_state_is_for_its_owner_only(backend, tmp_path):
    backend.submit(JobSpec("mine", python("")))
    settled(backend, "mine")
    assert (tmp_path / "jobs" / "mine").stat().st_mode & 0o077 == 0


def test_an_outcome_that_is_none_is_not_read(backend, tmp_path):
    backend.submit(JobSpec("liar", python("import time; open('../exit', 'w').write('done'); time.sleep(1)"), {}))
    assert settled(backend, "liar").phase is JobPhase.SUCCEEDED  # the keeper has the last word
    (tmp_path / "jobs" / "liar" / "exit").write_text('{"phase": "splendid"}')
    assert settled(backend, "liar").phase is JobPhase.LOST


FORGED = '{"phase": "succeeded", "exit_code": 0, "reason": ""}'


@pytest.mark.parametrize(
    ("then", "phase"),
    [
        ("sys.exit(3)", JobPhase.FAILED),
        ("os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)", JobPhase.LOST),
        ("os.remove('../lock'); time.sleep(1); sys.exit(3)", JobPhase.FAILED),
        ("os.remove('../exit'); os.mkdir('../exit'); sys.exit(3)", JobPhase.LOST),
    ],
    ids=["fails", "kills its keeper", "removes the lock", "bars the keeper"],
)
def test_an_outcome_that_the_job_wrote_itself_is_not_believed(backend, then, phase):
    code = f"import os, signal, sys, time; open('../exit', 'w').write({FORGED!r}); {then}"
    backend.submit(JobSpec("forger", python(code)))
    seen = settled(backend, "forger")
    assert seen.phase is phase
    assert backend.status("forger") == seen
    assert ProcessBackend(backend._root).status("forger") == seen


def test_a_job_that_stops_its_keeper_is_killed_with_all_that_it_started(backend):
    code = """
        import os, signal, subprocess, sys, time
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        print(os.getpid(), child.pid, os.getppid(), flush=True)
        os.kill(os.getppid(), signal.SIGSTOP)
        time.sleep(600)
    """
    lines = []
    log = SimpleNamespace(info=lambda text, *values: lines.append(text % values))
    spec = JobSpec("stopper", python(code), run_timeout=timedelta(seconds=4))
    status, _ = run_job(backend, spec, log, patience=0.1)
    assert status.phase is JobPhase.TIMED_OUT
    assert "run_timeout of 0:00:04, and what runs it did not end it" in status.reason
    until(lambda: not any(is_alive(int(pid)) for pid in lines[0].split()))
    assert backend.status("stopper").phase is JobPhase.TIMED_OUT
    backend.kill("stopper")  # nothing happens


def test_a_process_that_ends_leaves_no_job_whose_keeper_was_stopped(tmp_path):
    job = "import os, signal, time; print(os.getpid(), os.getppid(), flush=True); os.kill(os.getppid(), 19); time.sleep(600)"
    submitter = f"""
        import sys, time
        from pathlib import Path
        from airflow_provider_mlops.adapters.jobs import keeper
        from airflow_provider_mlops.adapters.jobs.subprocess import ProcessBackend
        from airflow_provider_mlops.jobs import JobSpec
        keeper.KILL_SECONDS = 1.0
        backend = ProcessBackend(Path({str(tmp_path)!r}))
        backend.submit(JobSpec("stopper", (sys.executable, "-c", {job!r})))
        while "\\n" not in backend.logs("stopper")[0]:
            time.sleep(0.05)
        print(backend.logs("stopper")[0])
    """
    done = subprocess.run(python(submitter), capture_output=True, text=True, timeout=PATIENCE, check=True)
    until(lambda: not any(is_alive(int(pid)) for pid in done.stdout.split()))


def test_a_job_starts_in_the_folder_it_was_given(backend, tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text("print('trained')")
    backend.submit(JobSpec("here", (sys.executable, "train.py"), files=code))
    assert settled(backend, "here").phase is JobPhase.SUCCEEDED
    assert backend.logs("here")[0] == "trained\n"


def test_a_job_without_files_starts_in_an_empty_folder(backend):
    backend.submit(JobSpec("empty", python("import os; print(os.listdir())")))
    settled(backend, "empty")
    assert backend.logs("empty")[0] == "[]\n"


def test_a_folder_that_is_not_there_is_named(backend, tmp_path):
    with pytest.raises(ConfigError, match="gone is no folder"):
        backend.submit(JobSpec("x", ("true",), files=tmp_path / "gone"))
    assert backend.status("x").phase is JobPhase.UNKNOWN


@pytest.mark.parametrize("program", ["pyhton", "/nowhere/bin/python"])
def test_a_program_that_is_not_there_is_named(backend, program):
    backend.submit(JobSpec("typo", (program, "-u", "train.py")))
    status = settled(backend, "typo")
    assert (status.phase, status.exit_code) == (JobPhase.FAILED, 127)
    assert status.reason.startswith(f"{program!r} cannot be started in ")
    assert f"{program!r} cannot be started" in backend.logs("typo")[0]


def test_a_job_that_a_signal_ends_says_which(backend):
    backend.submit(JobSpec("oom", python("import os; os.kill(os.getpid(), 9)")))
    status = settled(backend, "oom")
    assert (status.phase, status.exit_code) == (JobPhase.FAILED, -9)
    assert status.reason == "It was ended by SIGKILL. The machine may have run out of memory."


def test_a_job_that_runs_too_long_is_ended_and_says_so(backend):
    backend.submit(JobSpec("slow", python("import time; time.sleep(600)"), run_timeout=timedelta(seconds=0.5)))
    status = settled(backend, "slow")
    assert status.phase is JobPhase.TIMED_OUT
    assert status.reason == "It ran longer than its run_timeout of 0.5 s."
    assert "run_timeout of 0.5 s" in backend.logs("slow")[0]


def test_a_job_may_end_itself_in_its_grace(tmp_path):
    backend = ProcessBackend(tmp_path / "jobs", grace=timedelta(seconds=PATIENCE))
    code = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(0)))
        print("ready", flush=True)
        time.sleep(600)
    """
    backend.submit(JobSpec("polite", python(code)))
    until(lambda: "ready" in backend.logs("polite")[0])
    backend.cancel("polite")
    assert settled(backend, "polite").reason == "It was canceled."
    assert "saved" in backend.logs("polite")[0]


def test_a_job_that_ignores_sigterm_is_killed_after_its_grace(backend):
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    backend.submit(JobSpec("deaf", python(code)))
    until(lambda: "deaf" in backend.logs("deaf")[0])
    backend.cancel("deaf")
    assert settled(backend, "deaf").exit_code == -9


@pytest.mark.parametrize("stubborn", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN); "])
def test_a_job_that_is_ended_is_over_when_the_call_returns(backend, stubborn):
    backend.submit(
        JobSpec("ended", python(f"import os, signal, time; {stubborn}print(os.getpid(), flush=True); time.sleep(600)"))
    )
    until(lambda: backend.logs("ended")[0].endswith("\n"))
    end_job(backend, "ended")
    assert not is_alive(int(backend.logs("ended")[0].splitlines()[0]))
    assert backend.status("ended").phase is JobPhase.FAILED
    end_job(backend, "ended")
    end_job(backend, "never-submitted")


def test_a_job_that_stopped_its_keeper_is_killed_when_it_is_ended(backend):
    stop = "os.kill(os.getppid(), signal.SIGSTOP)"
    backend.submit(
        JobSpec("stops", python(f"import os, signal, time; {stop}; print(os.getpid(), flush=True); time.sleep(600)"))
    )
    until(lambda: backend.logs("stops")[0].endswith("\n"))
    end_job(backend, "stops", patience=1.0)
    until(lambda: not is_alive(int(backend.logs("stops")[0])))


def test_what_a_job_detached_and_has_ended_is_no_zombie_while_the_job_runs(backend):
    detach = "subprocess.Popen(['sh', '-c', 'while [ ! -e go ]; do sleep 0.05; done & echo $!']).wait()"
    backend.submit(JobSpec("detaches", python(f"import subprocess, time; {detach}; time.sleep(600)")))
    until(lambda: backend.logs("detaches")[0].endswith("\n"))
    detached = Path("/proc", backend.logs("detaches")[0].strip())
    assert detached.exists()
    (backend._root / "detaches" / "work" / "go").touch()
    until(lambda: not detached.exists())
    assert backend.status("detaches").phase is JobPhase.RUNNING
    backend.cancel("detaches")
    assert settled(backend, "detaches").phase is JobPhase.FAILED


def test_what_a_job_leaves_in_the_background_ends_with_it(backend):
    code = """
        import subprocess, sys
        for detached in (False, True):
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=detached)
            print(child.pid, flush=True)
    """
    backend.submit(JobSpec("litter", python(code)))
    assert settled(backend, "litter").phase is JobPhase.SUCCEEDED
    pids = [int(line) for line in backend.logs("litter")[0].split()]
    assert len(pids) == 2
    assert not [pid for pid in pids if is_alive(pid)]


SUBMITTER = """
import sys, time
from pathlib import Path
from airflow_provider_mlops.adapters.jobs.subprocess import ProcessBackend
from airflow_provider_mlops.jobs import JobSpec

code = '''
import os, subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
pids = [os.getpid(), os.getppid(), subprocess.Popen(sleeper).pid, subprocess.Popen(sleeper, start_new_session=True).pid]
print(*pids, flush=True)
time.sleep(600)
'''
backend = ProcessBackend(Path(sys.argv[1]))
backend.submit(JobSpec("orphan", (sys.executable, "-c", code)))
print("submitted", flush=True)
time.sleep(600)
"""


def test_kill_9_of_the_submitter_leaves_nothing_of_the_job_and_the_job_lost(tmp_path, backend):
    with subprocess.Popen([sys.executable, "-c", SUBMITTER, tmp_path / "jobs"], stdout=subprocess.PIPE) as submitter:
        assert submitter.stdout.readline() == b"submitted\n"
        until(lambda: backend.logs("orphan")[0].endswith("\n"))
        pids = [int(word) for word in backend.logs("orphan")[0].split()]
        assert all(map(is_alive, pids))
        assert backend.status("orphan").phase is JobPhase.RUNNING
        submitter.kill()
        submitter.wait()
        until(lambda: not any(map(is_alive, pids)))
    status = backend.status("orphan")
    assert status.phase is JobPhase.LOST
    assert status.reason == "It ended together with the process that had submitted it."
    backend.submit(JobSpec("orphan", python("print('again')")))
    assert backend.status("orphan").phase is JobPhase.LOST


LEAVES = "import os, tempfile; print(tempfile.mkdtemp(), flush=True)"
STAYS = f"{LEAVES}; import time; time.sleep(600)"


@pytest.mark.parametrize("code", [LEAVES, f"{LEAVES}; os._exit(3)", f"{LEAVES}; os.kill(os.getpid(), 9)", STAYS])
def test_what_a_job_leaves_in_its_temporary_folder_is_removed_with_it(backend, code):
    backend.submit(JobSpec("messy", python(code)))
    until(lambda: backend.logs("messy")[0].endswith("\n"))
    backend.cancel("messy")  # which matters to the one that stays
    settled(backend, "messy")
    folder = Path(backend.logs("messy")[0].splitlines()[0]).parent
    assert folder != Path(tempfile.gettempdir())
    until(lambda: not folder.exists())


def test_a_kill_of_the_submitter_removes_the_temporary_folder_too(tmp_path, backend):
    program = f"""
import sys, time
from pathlib import Path
from airflow_provider_mlops.adapters.jobs.subprocess import ProcessBackend
from airflow_provider_mlops.jobs import JobSpec

ProcessBackend(Path(sys.argv[1])).submit(JobSpec("messy", (sys.executable, "-c", {STAYS!r})))
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program, tmp_path / "jobs"]) as submitter:
        until(lambda: backend.logs("messy")[0].endswith("\n"))
        folder = Path(backend.logs("messy")[0].splitlines()[0]).parent
        assert folder.exists()
        submitter.kill()
    until(lambda: not folder.exists())


def test_a_submitter_that_ends_takes_its_jobs_with_it(tmp_path, backend):
    wait = 'while not backend.logs("orphan")[0].endswith("\\n"):\n    time.sleep(0.05)\n'
    ending = SUBMITTER.rpartition("time.sleep(600)")[0] + wait
    subprocess.run([sys.executable, "-c", ending, tmp_path / "jobs"], check=True, timeout=PATIENCE)
    pids = [int(word) for word in backend.logs("orphan")[0].split()]
    assert len(pids) == 4
    assert not any(map(is_alive, pids))
    assert backend.status("orphan").phase is JobPhase.LOST


def test_a_process_forked_from_the_submitter_does_not_keep_the_job(tmp_path, backend):
    forking = SUBMITTER.replace(
        'print("submitted", flush=True)',
        "import os\nif (child := os.fork()) == 0:\n    time.sleep(600)\n    os._exit(0)\nprint(child, flush=True)",
    )
    with subprocess.Popen([sys.executable, "-c", forking, tmp_path / "jobs"], stdout=subprocess.PIPE) as submitter:
        child = int(submitter.stdout.readline())
        submitter.kill()
        submitter.wait()
        try:
            until(lambda: backend.status("orphan").phase is JobPhase.LOST)
            assert is_alive(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_keeper_that_is_killed_takes_the_job_with_it(backend):
    backend.submit(
        JobSpec("kept", python("import os, time; print(os.getpid(), os.getppid(), flush=True); time.sleep(600)"))
    )
    until(lambda: backend.logs("kept")[0].endswith("\n"))
    job, its_keeper = map(int, backend.logs("kept")[0].split())
    os.kill(its_keeper, signal.SIGKILL)
    until(lambda: not is_alive(job))
    assert backend.status("kept").phase is JobPhase.LOST


def test_of_many_who_submit_at_once_one_starts_the_job(tmp_path, backend):
    commands = [python(f"print({number})") for number in range(8)]
    ready = threading.Barrier(len(commands))

    def submit(command):
        ready.wait()
        backend.status("race")
        ProcessBackend(tmp_path / "jobs").submit(JobSpec("race", command))

    threads = [threading.Thread(target=submit, args=(command,)) for command in commands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert settled(backend, "race").phase is JobPhase.SUCCEEDED
    assert len(backend.logs("race")[0].split()) == 1


def test_a_submitter_that_died_before_the_start_did_not_submit(backend, tmp_path):
    (tmp_path / "jobs" / "early").mkdir(parents=True)
    (tmp_path / "jobs" / "early" / "lock").touch()
    assert backend.status("early").phase is JobPhase.UNKNOWN
    backend.submit(JobSpec("early", python("print(1)")))
    assert settled(backend, "early").phase is JobPhase.SUCCEEDED


def test_a_log_in_another_encoding_is_still_read(backend):
    backend.submit(JobSpec("latin", python(r"import sys; sys.stdout.buffer.write(b'gr\xfc\xdfe \xe2\x82')")))
    settled(backend, "latin")
    assert backend.logs("latin") == ("gr\ufffd\ufffde \ufffd", 8)


def test_a_character_that_is_half_written_waits_for_its_other_half(backend, tmp_path):
    code = r"""
        import pathlib, sys, time
        sys.stdout.buffer.write(b"10 \xe2\x82"); sys.stdout.flush()
        while not pathlib.Path("go").exists(): time.sleep(0.01)
        sys.stdout.buffer.write(b"\xac")
    """
    backend.submit(JobSpec("euro", python(code)))
    until(lambda: backend.logs("euro")[0])
    assert backend.logs("euro") == ("10 ", 3)
    (tmp_path / "jobs/euro/work/go").touch()
    settled(backend, "euro")
    assert backend.logs("euro", 3) == ("\u20ac", 6)


def test_a_long_log_comes_in_pages(backend):
    backend.submit(JobSpec("long", python("print('x' * (3 << 20), end='')")))
    settled(backend, "long")
    text, after = backend.logs("long")
    assert (len(text), after) == (1 << 20, 1 << 20)
    with pytest.raises(ConfigError, match="offset >= 0"):
        backend.logs("long", -1)


def test_a_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "jobs").write_text("in the way")
    with pytest.raises(ServiceError, match=r"'x' cannot be started from .*jobs/x"):
        ProcessBackend(tmp_path / "jobs").submit(JobSpec("x", ("true",)))


def test_the_keeper_imports_nothing_but_the_standard_library():
    code = (
        f"import runpy, sys; runpy.run_path({keeper.__file__!r}); print(sorted(m.split('.')[0] for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert set(eval(done.stdout)) <= {*sys.stdlib_module_names, "__main__", *sys.builtin_module_names}


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (1, "It ended with exit code 1."),
        (-15, "It was ended by SIGTERM."),
        (-9, "It was ended by SIGKILL. The machine may have run out of memory."),
        (-63, "It was ended by signal 63."),
    ],
)
def test_an_exit_code_is_explained(code, sentence):
    assert keeper.explain(code) == sentence
