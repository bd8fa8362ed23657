"""The whole suite, in processes side by side: `make test`.

Most tests use one core, and those on a real SLURM wait for its daemons half of their time. The output of the
first part is shown as it comes, that of the others when all have ended.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTEST = [sys.executable, "-m", "pytest"]
MEMORY = Path("/dev/shm")
NEEDED = 4 << 30  # bytes; the files of all tests are a tenth of it
SECOND = ("tests/hpc", "tests/data_shards", "tests/models")  # as long as the rest
PARTS = ([f"--ignore={part}" for part in (*SECOND, "tests/slurm")], [*SECOND], ["tests/slurm"])


def main() -> int:
    """Run all tests; return the first exit code of pytest that is not zero."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with scratch() as folder, ExitStack() as stack:
        # Threads that wait for each other's turn on shared cores cost more time than they save.
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "TMPDIR": folder}
        outputs = [None, *(stack.enter_context(tempfile.TemporaryFile()) for _ in PARTS[1:])]
        suites = [
            # In sessions of their own: a second Ctrl-C would keep pytest from ending what its tests started.
            subprocess.Popen(
                [*PYTEST, *words],
                cwd=ROOT,
                env=environment,
                stdout=file,
                stderr=file and subprocess.STDOUT,
                start_new_session=True,
            )
            for words, file in zip(PARTS, outputs, strict=True)
        ]
        try:
            codes = [suite.wait() for suite in suites]
        finally:
            for suite in suites:
                if suite.poll() is None:
                    suite.send_signal(signal.SIGINT)
                suite.wait()
            for output in filter(None, outputs):
                output.seek(0)
                print(output.read().decode(errors="replace"), flush=True)
    return next(filter(None, codes), 0)


@contextmanager
def scratch() -> Iterator[str]:
    """A folder for what the tests write: in memory if there is room, since they force many files to disk."""
    usable = MEMORY.is_dir() and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC  # some tests write programs
    place = MEMORY if usable and shutil.disk_usage(MEMORY).free >= NEEDED else None
    with tempfile.TemporaryDirectory(prefix="rostro-tests-", dir=place) as folder:
        os.chmod(folder, 0o755)  # tests of other users reach what is theirs in it
        yield folder


if __name__ == "__main__":
    sys.exit(main())
