"""Workers deliver every result, raise what a job raises, and end when their caller leaves or dies."""

import math
import multiprocessing
import os
import time

import pytest

from data_shards.errors import UserError
from data_shards.workers import run_jobs


@pytest.mark.parametrize("workers", [1, 3])
def test_every_result_comes_with_the_number_of_its_job(workers):
    jobs = [(number,) for number in range(20)]
    assert dict(run_jobs(math.factorial, jobs, workers=workers)) == {n: math.factorial(n) for n in range(20)}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_job_raises_is_raised_here(workers):
    with pytest.raises(ValueError, match="negative"):
        list(run_jobs(math.factorial, [(3,), (-1,), (4,)], workers=workers))


def test_a_worker_that_dies_gives_one_line():
    with pytest.raises(UserError, match=r"a worker process ended by itself.*workers=1"):
        list(run_jobs(os._exit, [(3,), (3,)], workers=2))


def test_leaving_early_ends_the_workers():
    begin = time.monotonic()
    results = run_jobs(time.sleep, [(0.0,), (600,), (600,)], workers=2)
    assert next(results)[0] == 0
    assert len(multiprocessing.active_children()) == 2
    results.close()
    assert multiprocessing.active_children() == []
    assert time.monotonic() - begin < 300  # of 600 s that the jobs would take
