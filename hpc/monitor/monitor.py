"""Reports a run: TensorBoard, `metrics.jsonl`, the log lines and bar of rank 0, `status.json`.

Every series is plotted against images seen. Groups `loss`, `optim`, `data` and `val` (or `eval`) follow from
the config and are the same after a resume; `perf` depends on the machine. Event files:
`hpc/monitor/event_file.py`.
"""

import dataclasses
import functools
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import yaml
from torch import Tensor

from data_shards.errors import UserError
from hpc.config import held_out
from hpc.config.identity import numbers
from hpc.config.schema import Config
from hpc.distributed.comm import Comm
from hpc.evaluation.base import Report
from hpc.monitor import console, event_file, projector, sample_files
from hpc.monitor.metrics_file import trim_lines
from hpc.runs.run_dir import RunDir

# TensorBoard sorts its cards by name, and people look for the loss first: evaluations come after it. A digest
# (group `data`) is not drawn.
TAGS = {"eval": "metrics", "data": ""}


def _rank0(method: Callable[..., None]) -> Callable[..., None]:
    """Let only rank 0 act, while every rank may call the method; turn a full disk into a UserError."""

    @functools.wraps(method)
    def wrapped(self: "Monitor", *args: Any, **kwargs: Any) -> None:
        if not self.main:
            return
        try:
            method(self, *args, **kwargs)
        except BrokenPipeError:  # the reader of stdout has gone
            raise
        except OSError as error:
            raise UserError(
                f"the logs in {self.run} cannot be written ({error.strerror or error}): free space or give "
                f"rights there, then `rostro resume {self.run.name}`"
            ) from None

    return wrapped


class Monitor:
    """The reports of a run, built on every rank. `resume_clock`: a checkpoint's clock (None = fresh run)."""

    def __init__(self, run: Path, config: Config, *, rank: int, resume_clock: int | None) -> None:
        self.main = rank == 0
        self.run, self.config = run, config
        self._judged = held_out.validation(config.data) or "eval"
        self._resume_clock = resume_clock
        self._reached = resume_clock or 0
        self._metrics: dict[str, float] = {}
        self._speed = 0.0
        self._open()

    @_rank0
    def _open(self) -> None:
        lines = self.run / "metrics.jsonl"
        warnings: list[str] = []
        if self._resume_clock is None:
            event_file.remove(self.run)
            lines.unlink(missing_ok=True)
            sample_files.trim(self.run, 0)
        else:
            warnings = [
                *event_file.trim(self.run, self._resume_clock),
                *trim_lines(lines, self._resume_clock),
            ]
            sample_files.trim(self.run, self._resume_clock)
        self._events = event_file.EventFile(self.run, resume_clock=self._resume_clock)
        from torch.utils.tensorboard import summary  # after `events`, which keeps TensorFlow out

        self._summary = summary
        self._lines = lines.open("a")
        self._console = console.Console(self._reached, self.config.images)
        for warning in warnings:
            self._console.say(warning)
        if self._resume_clock is None:
            self._describe()

    def _describe(self) -> None:
        """Write the config as text and as the hyperparameters of this run, once in its life."""
        text = yaml.safe_dump(dataclasses.asdict(self.config), sort_keys=False)
        quoted = "".join(f"    {line}\n" for line in text.splitlines())
        self._events.add(self._summary.text("config", quoted), 0)
        self._events.add(self._summary.text("held_out", held_out.statement(self.config.data)), 0)
        settings = {key: _plain(value) for key, value in numbers(self.config).items()}
        # The start record belongs in the run's own file: torch's add_hparams would make a run of its own for
        # it.
        self._events.add(self._summary.hparams(settings, {})[1], 0)

    @_rank0
    def note(self, text: str) -> None:
        """Write a line (or lines) to the log."""
        self._console.say(text)

    @_rank0
    def scalars(self, clock: int, values: Mapping[str, float], *, group: str) -> None:
        """Add one point to each series of a group, in `metrics.jsonl` and, where drawn, TensorBoard."""
        tag = TAGS.get(group, group)
        for name, value in values.items() if tag else ():
            self._events.add(self._summary.scalar(f"{tag}/{name}", float(value)), clock)
        line: dict[str, Any] = {"clock": clock, "group": group}
        line |= {n: float(v) if math.isfinite(v) else None for n, v in values.items()}
        self._lines.write(json.dumps(line) + "\n")
        self._reached = max(self._reached, clock)

    @_rank0
    def log_progress(
        self,
        clock: int,
        *,
        losses: Mapping[str, float],
        rates: Mapping[str, float],
        grad_norm: Mapping[str, float],
        images_per_s: float,
        data_wait: float,
        memory_mb: float,
    ) -> None:
        """Report the updates since the last log line. `rates`, `grad_norm`: by player; `data_wait`: 0..1."""
        # An average over about the last dozen log lines: one slow interval must not double the time left.
        self._speed = 0.85 * self._speed + 0.15 * images_per_s if self._speed else images_per_s
        left = (self.config.images - clock) / max(self._speed, 1e-9)
        rate, norm = _by_player("lr", rates), _by_player("grad_norm", grad_norm)
        self.scalars(clock, losses, group="loss")
        self.scalars(clock, rate | norm, group="optim")
        machine = {"images_per_s": images_per_s, "data_wait": data_wait, "memory_mb": memory_mb}
        self.scalars(clock, machine, group="perf")
        self._show()
        self._console.say(
            console.progress_line(
                clock, self.config.images, losses=losses, rates=rate, norms=norm, left=left, **machine
            )
        )
        self._console.advance(clock, self._speed, left)
        status: dict[str, Any] = {"state": "running", "clock": clock, "images": self.config.images}
        loss = next((value for value in losses.values() if math.isfinite(value)), None)
        status |= {"rate": self._speed, "loss": loss}
        RunDir(self.run).write_status(**status)

    @_rank0
    def report(
        self,
        clock: int,
        report: Report,
        shown: tuple[Tensor, Tensor] | None = None,
        *,
        labels: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Report an evaluation: scalars, PR and ROC curves, the embedding projector.

        `shown`: thumbnails (uint8 [n, 3, h, w]) and their sample ids [n]; `labels`: name -> n values by which
        the projector can colour.
        """
        self.scalars(clock, report.scalars, group=self._judged)
        for name, (scores, positive) in report.curves.items():
            prefix = name.removesuffix("roc").removesuffix("pr")  # `verification/` of verification/roc
            self._curve(clock, prefix, scores, positive.astype(bool))
        if report.embeddings is not None and shown is not None and self.config.log.projector:
            self._project(clock, report.embeddings, shown, labels or {})
        self._show()
        self._console.say(f"{clock:>11,} evaluated  {console.figures(report.scalars)}")
        RunDir(self.run).write_status(metrics={n: v for n, v in report.scalars.items() if math.isfinite(v)})

    def _curve(self, clock: int, prefix: str, scores: np.ndarray, positive: np.ndarray) -> None:
        """Add scores [n] (higher = more likely positive) as a PR curve and as a drawing of the ROC."""
        if positive.all() or not positive.any():
            return  # neither curve is defined
        tag = TAGS.get(self._judged, self._judged)
        low, high = float(scores.min()), float(scores.max())
        share = (scores.astype(np.float64) - low) / max(high - low, 1e-12)  # the PR plugin wants [0, 1]
        self._events.add(self._summary.pr_curve(f"{tag}/{prefix}pr", positive.astype(np.int64), share), clock)
        from hpc.plots import roc  # matplotlib is slow to load

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "roc.png"
            roc.draw_roc(path, {"held-out set": (scores, positive)}, title=f"{clock:,} images seen")
            self._image(clock, f"{tag}/{prefix}roc", path.read_bytes())

    def _project(
        self,
        clock: int,
        embeddings: tuple[np.ndarray, np.ndarray],
        shown: tuple[Tensor, Tensor],
        labels: Mapping[str, Sequence[Any]],
    ) -> None:
        vectors, ids = embeddings
        place = {sample: row for row, sample in enumerate(ids.tolist())}
        samples = shown[1].tolist()
        keep = [row for row, sample in enumerate(samples) if sample in place][: self.config.log.projector]
        columns = {name: [values[row] for row in keep] for name, values in labels.items()}
        columns["sample"] = [samples[row] for row in keep]
        if keep:
            rows = [place[samples[row]] for row in keep]
            projector.write(self.run, clock, vectors[rows], shown[0][keep], columns)

    @_rank0
    def images(self, clock: int, name: str, images: Tensor, *, keep: bool = False) -> None:
        """Add a grid of `images` [n, 3 or 1, h, w] in [-1, 1].

        keep: whether it also becomes a file of its own, in full size (`sample_files.py`)
        """
        pixels = images.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte().cpu()
        sheet = projector.grid(pixels, gap=2)
        if keep:
            sample_files.write(self.run, name, clock, projector.png(sheet))
        self._image(clock, f"pictures/{name}", projector.png(projector.reduced(sheet)))

    def _image(self, clock: int, tag: str, encoded: bytes) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        height, width = (int.from_bytes(encoded[at : at + 4], "big") for at in (20, 16))  # PNG's header
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
        self._events.add(Summary(value=[Summary.Value(tag=tag, image=image)]), clock)

    @_rank0
    def histograms(self, clock: int, tensors: Mapping[str, Tensor]) -> None:
        """Add histograms of the values of named tensors."""
        for name, tensor in tensors.items():
            values = tensor.detach().float().cpu().numpy()
            self._events.add(self._summary.histogram(f"weights/{name}", values, bins=64), clock)

    def _show(self) -> None:
        self._events.show()
        self._lines.flush()

    @_rank0
    def flush(self) -> None:
        """Return when all that was logged is on disk; called before each checkpoint."""
        self._events.flush()
        self._lines.flush()
        os.fsync(self._lines.fileno())

    @_rank0
    def close(self) -> None:
        if self._lines.closed:
            return
        if self._reached >= self.config.images > (self._resume_clock or 0):
            self._events.add(self._summary.hparams({}, {})[2], self._reached)
        self.flush()
        self._events.close()
        self._lines.close()
        self._console.close()


def _by_player(name: str, values: Mapping[str, float]) -> dict[str, float]:
    """Name the series of each player: `name` for a single one, `name_<player>` for several."""
    if len(values) == 1:
        return {name: next(iter(values.values()))}
    return {f"{name}_{player}": value for player, value in values.items()}


def _plain(value: Any) -> int | float | str:
    """Convert a setting to what the hyperparameter table can show: a number stays, the rest becomes text."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def memory_mb(comm: Comm) -> float:
    """Return this rank's memory in megabytes: the peak on a GPU, or the resident size."""
    if comm.device.type == "cuda":
        return torch.cuda.max_memory_allocated(comm.device) / 1e6
    return psutil.Process().memory_info().rss / 1e6
