"""Two runs that have every file a run may have, one of them to be damaged, and the commands on them."""

import contextlib
import io
import json
import shutil
import time
from pathlib import Path
from typing import Any
from unittest import mock

from data_shards.files import write_json
from hpc.config.identity import numbers
from hpc.runs import goodput
from hpc.runs.processes import mark
from hpc.runs.run_dir import RunDir
from launch import cli
from tests.support.judged import judged_run

COMMANDS = ("status", "logs", "failed", "stop", "resume", "evaluate", "verify", "export")


class Field:
    """`call(command)` works on the run `hurt`; `restore` undoes what was done to it."""

    def __init__(self, folder: Path, shards: Path) -> None:
        self.folder, self.shards = folder, shards
        whole = judged_run(folder / "whole", shards)
        self._fill(RunDir(whole))
        self.run = RunDir(folder / "runs" / "hurt")
        images = sorted((shards.parent / "pictures").glob("person000/*.jpg"))
        self.pair = [str(path) for path in images[:2]]
        for name in ("hurt", "other"):
            shutil.copytree(whole, folder / "runs" / name, symlinks=True)
        code, _, said = self.call("evaluate")
        assert code == 0, said
        shutil.rmtree(whole)
        shutil.copytree(self.run.path, whole, symlinks=True)
        paths = (path for path in whole.rglob("*") if path.suffix in (".json", ".yaml", ".jsonl", ".log"))
        self.files = sorted(
            path for path in (p.relative_to(whole) for p in paths) if "code" not in path.parts
        )
        self.baseline = {command: self.call(command) for command in COMMANDS}

    def _fill(self, run: RunDir) -> None:
        host, now = mark()[0], time.time()
        run.logs.mkdir()
        run.failures.mkdir()
        run.log(0).write_text("first line\nlast line\n")
        run.resolve({"precision": "fp32", "backend": "host"})
        write_json(run.git_file, {"job": "", "commit": "x"})
        write_json(run.data_file, {})
        write_json(run.starts_file, {"clock": 320, "count": 1})
        write_json(run.lock_file, {"host": host, "pid": 0, "started": 1.0, "job": "", "restarts": 1})
        place = {"0": [host, 0, 1.0]}
        run.write_status(
            state="failed", clock=300, images=320, rate=9.0, loss=0.5, began=now - 50, pids=place
        )
        run.write_status(metrics={"eer": 0.2}, message="it failed", attempt="a")
        failure = {"attempt": "a", "rank": 0, "world": 1, "time": now, "clock": 300, "message": "it failed"}
        write_json(run.failures / "a-rank0.json", failure | {"lost": False, "error": "UserError"})
        seconds = dict.fromkeys(goodput.KINDS, 1.0)
        line = {"start": "1-1.0", "began": now - 60, "time": now - 50, "clock": 300, "seconds": seconds}
        run.ledger_file.write_text(
            json.dumps(line) + "\n" + json.dumps({"start": "1-1.0", "ended": now}) + "\n"
        )
        run.metrics_file.write_text('{"clock": 32, "group": "loss", "all": 1.0}\n')

    def restore(self, name: Path | None = None) -> None:
        """Put the run, or one file of it, back."""
        whole = self.folder / "whole"
        for path in self.files if name is None else [name]:
            target = self.run.path / path
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(whole / path, target)
        for aside in (self.run.path / "checkpoints").glob(".damaged-*"):
            shutil.rmtree(aside)

    def call(self, command: str) -> tuple[int, Any, str]:
        """(exit code, what it says in comparable form, stderr) of a command on the run."""
        run, answer = str(self.run.path), None
        words = {
            "status": ["status", f"runs={self.run.path.parent}", "json=true"],
            "logs": ["logs", run],
            "failed": ["logs", run, "rank=failed"],
            "evaluate": ["evaluate", run, "bootstrap=0"],
            "verify": ["verify", run, *self.pair, "json=true"],
            "export": ["export", run, f"out={self.folder / 'out'}", "onnx=false"],
        }.get(command, [command, run])
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch("launch.start.start.start_run") as start,
            mock.patch("hpc.evaluation.report._draw", lambda _, reports: {name: [] for name in reports}),
            mock.patch("hpc.monitor.report_events.write"),  # of these pictures
        ):
            start.return_value = 0
            code = cli.main(words)
        if command == "resume" and code == 0:
            answer = numbers(start.call_args.args[1])
        elif command == "verify" and code == 0:
            answer = json.loads(out.getvalue())
        elif command == "status" and code == 0:
            rows = {row["run"]: row for row in json.loads(out.getvalue())}
            answer = {name: row["state"] for name, row in rows.items()} | {"message": rows["hurt"]["message"]}
            answer["goodput"] = rows["other"]["goodput"]
        elif command == "evaluate" and code == 0:
            (report,) = self.run.path.glob("evaluations/*/report.json")
            answer = json.loads(report.read_text())["rows"]
        elif command == "export" and code == 0:
            answer = (self.folder / "out" / "model.safetensors").read_bytes()
        elif code == 0:
            answer = out.getvalue()
        return code, answer, err.getvalue()
