"""A rank forked from the server of `tests/support/ranks.py`, like a subprocess.Popen.

It spares the seconds in which each rank would load torch.
"""

import os
import subprocess
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from tests.support.ranks import CONTEXT


class ForkedRank:
    """`python -m hpc.train RUN` as a child of the server; `variables` are its whole environment."""

    def __init__(self, run: Path, variables: dict[str, str], cwd: Path) -> None:
        pipes = [CONTEXT.Pipe(duplex=False) for _ in range(2)]
        writers = [writer for _, writer in pipes]
        self._process = CONTEXT.Process(target=_train, args=(str(run), variables, str(cwd), *writers))
        self._process.start()
        for writer in writers:
            writer.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self._output = ["", ""]
        self._readers = [
            threading.Thread(target=self._read, args=(number, os.fdopen(os.dup(reader.fileno()))))
            for number, (reader, _) in enumerate(pipes)
        ]
        for thread, (reader, _) in zip(self._readers, pipes, strict=True):
            reader.close()
            thread.start()

    def _read(self, number: int, file: IO[str]) -> None:
        with file:
            self._output[number] = file.read()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked rank", timeout or 0.0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        for thread in self._readers:
            thread.join()
        return self._output[0], self._output[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _train(run: str, variables: dict[str, str], cwd: str, out: Connection, err: Connection) -> None:
    for stream, pipe in ((1, out), (2, err)):
        os.dup2(pipe.fileno(), stream)
        pipe.close()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    import torch

    import tests.support.tiny  # noqa: F401 - the server has imported it: the tiny jobs are tasks
    from hpc import rank

    torch.set_num_threads(1)
    raise SystemExit(rank.main(run))
