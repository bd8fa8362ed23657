"""A process is recognised by its start, whatever happens to the clock."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from hpc.runs.processes import alive, mark


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_process_lives_until_it_ends(sleeper):
    place = mark(sleeper.pid)
    assert alive(*place) is True
    assert alive(*place[:2]) is True
    assert alive("elsewhere", *place[1:]) is None
    sleeper.kill()
    time.sleep(0.2)
    assert alive(*place) is False  # a zombie
    sleeper.wait()
    assert alive(*place) is False
    with pytest.raises(psutil.NoSuchProcess):
        mark(sleeper.pid)


def test_a_name_may_be_no_text():
    """A name of UTF-8 is cut after 15 bytes."""
    named = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'\\xc3\\x9cbertr\\xc3'); "
    words = named + "print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert alive(*mark(process.pid)) is True
        finally:
            process.kill()


def test_another_process_of_the_same_pid_is_not_it(sleeper):
    host, pid, started = mark(sleeper.pid)
    assert alive(host, pid, started - 0.1) is False
    assert mark(os.getpid())[2] < started


def test_setting_the_clock_does_not_end_a_process(sleeper, monkeypatch):
    place = mark(sleeper.pid)
    date = psutil.Process(sleeper.pid).create_time()
    assert alive(*place[:2], date) is True  # as earlier versions wrote it
    own = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: own(process) + 30)
    assert alive(*place) is True
    assert mark(sleeper.pid) == place
    assert alive(*place[:2], date) is False
