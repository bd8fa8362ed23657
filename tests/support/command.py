"""The real commands as processes, for tests: `rostro(...)` from any folder, `script(...)` as a file."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def environment(**changes: str | None) -> dict[str, str]:
    """This process' variables without a place among ranks; None removes one."""
    dropped = ("ROSTRO_SHARDS", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
    values: dict[str, Any] = {key: value for key, value in os.environ.items() if key not in dropped}
    values |= {"PYTHONPATH": str(ROOT), "COLUMNS": "160"} | changes
    return {key: value for key, value in values.items() if value is not None}


def rostro(*words: str, cwd: Path, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Run `rostro WORDS` in the folder `cwd`."""
    return _run([sys.executable, "-m", "launch.cli", *words], cwd, changes)


def script(*words: str, cwd: Path, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Run `python launch/submit.py WORDS`, without the checkout on the path."""
    return _run(
        [sys.executable, str(ROOT / "launch" / "submit.py"), *words], cwd, {"PYTHONPATH": None} | changes
    )


def _run(command: list[str], cwd: Path, changes: dict[str, str | None]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


def refused(answer: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal; AssertionError for anything else."""
    lines = answer.stderr.splitlines()
    assert answer.returncode == 2, answer
    assert len(lines) == 1, answer.stderr
    assert lines[0].startswith("error: "), answer.stderr
    return lines[0]
