"""All fuzz campaigns one after the other, and a table of what came of them: `make fuzz`.

`seconds=` is for each campaign; without it an hour is shared by all. `seed=` begins another series (default: the time).
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
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
    print(f"{campaigns} campaigns, {seconds:.0f} seconds each, seed {seed}")
    with tempfile.TemporaryDirectory() as out:
        variables = {"ROSTRO_FUZZ_SECONDS": f"{seconds}", "ROSTRO_FUZZ_SEED": seed, "ROSTRO_FUZZ_OUT": out}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            f"--timeout={10 * seconds + 600:.0f}",
            *map(str, tests),
        ]
        code = subprocess.run(command, cwd=ROOT, env=os.environ | variables).returncode
        rows = [json.loads(path.read_text()) for path in sorted(Path(out).glob("*.json"))]
    total = {"name": "all", **{key: sum(row.get(key, 0) for row in rows) for key in COLUMNS}}
    print(f"\n| campaign | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for row in [*rows, total]:
        print(f"| {row['name']} | {' | '.join(f'{row.get(key, 0):,}' for key in COLUMNS)} |")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
