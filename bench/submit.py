"""`rostro submit dry_run=true` against `import hydra`, both as whole processes, interleaved; medians.

usage: python bench/submit.py [rounds]
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "import hydra": [sys.executable, "-c", "import hydra"],
    "submit dry_run=true": [sys.executable, str(ROOT / "launch" / "submit.py"), "dry_run=true", "procs=2"],
    "rostro --help": [sys.executable, "-m", "launch.cli", "--help"],
}
LIMIT = 3.0


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    environment = {name: value for name, value in os.environ.items() if name != "ROSTRO_SHARDS"}
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, command in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
            if number:  # the first round fills caches
                seconds[name].append(time.perf_counter() - begin)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{'command':<22}{'median':>9}{'fastest':>9}{'slowest':>9}")
    for name, values in seconds.items():
        print(f"{name:<22}{median[name]:>8.3f}s{min(values):>8.3f}s{max(values):>8.3f}s")
    ratio = median["submit dry_run=true"] / median["import hydra"]
    print(f"dry run / import hydra = {ratio:.2f} (at most {LIMIT:g})")
    print(
        json.dumps({"bench": "submit", "rounds": rounds, "ratio": round(ratio, 3), "limit": LIMIT, **median})
    )
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
