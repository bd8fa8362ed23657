"""The whole suite, in two processes side by side: `make test`.

The tests on a real SLURM wait for its daemons half of their time, in which the others use the cores. The
output of the others is shown as it comes, that of SLURM's tests when both have ended.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTEST = [sys.executable, "-m", "pytest"]


def main() -> int:
    """Run all tests; return the first exit code of pytest that is not zero."""
    # Threads that wait for each other's turn on shared cores cost more time than they save.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryFile() as output:
        ways = (["--ignore=tests/slurm"], None), (["tests/slurm"], output)
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
            for words, file in ways
        ]
        try:
            codes = [suite.wait() for suite in suites]
        finally:
            for suite in suites:
                if suite.poll() is None:
                    suite.send_signal(signal.SIGINT)
                suite.wait()
            output.seek(0)
            print(output.read().decode(errors="replace"), flush=True)
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    sys.exit(main())
