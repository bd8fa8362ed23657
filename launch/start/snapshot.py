"""The copy of the code that a run keeps and executes: our packages as they are now, committed or not.

An edit in the checkout, or a checkout of another commit, does not change an existing run.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("hpc", "models", "data_shards", "launch", "slurm", "pyproject.toml")
SKIPPED = ("__pycache__", ".pyc", ".so", ".egg-info")


def git(*words: str) -> str | None:
    """Return the output of a git command in the checkout; None without git or a repository."""
    try:
        command = ["git", "--no-optional-locks", "-C", str(ROOT), *words]  # never blocks a commit
        done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def files() -> list[Path]:
    """Return the files of our packages, relative to the root: tracked or new, without what git ignores."""
    parts = [part for part in PARTS if (ROOT / part).exists()]
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *parts)
    if listed and is_checkout():
        return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]
    paths = [
        path
        for part in parts
        for path in ([ROOT / part] if (ROOT / part).is_file() else (ROOT / part).rglob("*"))
    ]
    return [
        path.relative_to(ROOT)
        for path in paths
        if path.is_file() and not any(s in str(path) for s in SKIPPED)
    ]


def is_checkout() -> bool:
    """Return whether the root is that of a repository: installed packages may be inside another one."""
    top = git("rev-parse", "--show-toplevel")
    return top is not None and Path(top.strip()).resolve() == ROOT


def copy_code(target: Path) -> None:
    """Copy our packages into the new folder `target`."""
    for name in files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name)


def git_state() -> dict[str, Any]:
    """Return the version, and commit and state of the checkout (None = it is not a repository)."""
    commit = changes = diff = None
    if is_checkout():
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", *PARTS)
        diff = git("diff", "HEAD", "--", *PARTS)
    return {
        "version": version(),
        "commit": commit.strip() if commit else None,
        "dirty": bool(changes.strip()) if changes is not None else None,
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest() if diff else None,
    }


def version() -> str:
    """Return the version in `pyproject.toml` of a checkout or a run's copy, else of the installed package."""
    import re
    from importlib import metadata

    project = ROOT / "pyproject.toml"
    if project.is_file() and (line := re.search(r'(?m)^version = "(.+)"', project.read_text())):
        return line[1]
    try:
        return metadata.version("rostro")
    except metadata.PackageNotFoundError:
        return "unknown"
