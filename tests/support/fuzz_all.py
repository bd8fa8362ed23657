"""All fuzz campaigns, and a table of what came of them: `make fuzz`.

`seconds=` is for each campaign; without it an hour is shared by all. `jobs=2` runs two files at a time.
`seed=` begins another series (default: the time).
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("inputs", "refused", "recovered", "harmless", "traceback", "hang", "silent")
HOUR = 3600


def main(words: list[str]) -> int:
    options = dict(word.split("=", 1) for word in words)
    tests = sorted(ROOT.glob("tests/**/test_fuzz_*.py"))
    campaigns = sum(len(re.findall(r"\bcampaign\(", path.read_text())) for path in tests)
    seconds = float(options.get("seconds", HOUR / campaigns))
    seed = options.get("seed", str(int(time.time())))
    print(f"{campaigns} campaigns, {seconds:.0f} seconds each, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as out, ThreadPoolExecutor(int(options.get("jobs", 1))) as pool:
        variables = {"ROSTRO_FUZZ_SECONDS": f"{seconds}", "ROSTRO_FUZZ_SEED": seed, "ROSTRO_FUZZ_OUT": out}
        failed = list(pool.map(lambda path: _run(path, seconds, variables), tests))
        rows = [json.loads(path.read_text()) for path in sorted(Path(out).glob("*.json"))]
    total = {"name": "all", **{key: sum(row.get(key, 0) for row in rows) for key in COLUMNS}}
    print(f"\n| campaign | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for row in [*rows, total]:
        print(f"| {row['name']} | {' | '.join(f'{row.get(key, 0):,}' for key in COLUMNS)} |")
    return int(any(failed))


def _run(path: Path, seconds: float, variables: dict[str, str]) -> bool:
    """Whether a campaign of the file failed; then its output is shown."""
    command = [sys.executable, "-m", "pytest", "-q", f"--timeout={10 * seconds + 600:.0f}", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout + done.stderr, flush=True)
    return done.returncode != 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
