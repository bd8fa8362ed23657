"""The whole suite, `make test`: the tests on a real SLURM, which mostly wait, run beside all others.

Their output follows when the others are done. Exit code: 0 if both passed.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTEST = (sys.executable, "-m", "pytest")
SLURM = "tests/slurm"


def main(words: list[str]) -> int:
    """Run both parts with the options `words`; return the exit code."""
    with tempfile.TemporaryFile("w+") as output:
        beside = subprocess.Popen([*PYTEST, SLURM, *words], cwd=ROOT, stdout=output, stderr=output)
        try:
            code = subprocess.call([*PYTEST, f"--ignore={SLURM}", *words], cwd=ROOT)
            print(f"\n{SLURM}, which ran beside:", flush=True)
            code = beside.wait() or code
        finally:
            if beside.poll() is None:
                beside.terminate()
                beside.wait()
        output.seek(0)
        print(output.read(), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
