"""The schema of a run: every key that all tasks share, as dataclasses. Imports no torch.

A task adds its own closed block of keys under `task` (`launch/conf/task/<name>.yaml`); `launch/submit.py`
composes both with Hydra and writes the result, `RUN/config.yaml`, which is all that a rank reads.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Augment:
    """Random augmentation of a training picture. All zero and `crop_area=[1, 1]`: centre crop only."""

    crop_area: list[float] = field(default_factory=lambda: [0.5, 1.0])  # share of the picture's area
    crop_ratio: list[float] = field(default_factory=lambda: [0.75, 1.3333])  # width / height of the crop
    flip: float = 0.5  # probability
    brightness: float = 0.2  # factor drawn from [1 - x, 1 + x]
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.0  # degrees, drawn from [-x, x]


@dataclass
class Data:
    set: str = ""  # name of a packed set: $ROSTRO_SHARDS/<set>/train and /eval
    train: str = ""  # folder of the training shards; overrides `set`
    eval: str = ""  # folder of the held-out shards; overrides `set`; none: no evaluation while training
    size: int = 112  # pixels, side of the square picture that the network sees
    order: str = "plain"  # plain | groups (P x K identity batches, K = data.group)
    group: int = 4  # K: pictures of one identity that stand together in the batch
    backend: str = "auto"  # auto | dali | host
    stream: bool = False  # read shards in sequence only (pipes, URLs): weaker guarantees, see docs
    threads: int = 2  # decoding threads of a rank
    ahead: int = 4  # batches decoded ahead of the step
    augment: Augment = field(default_factory=Augment)


@dataclass
class Optim:
    name: str = "adamw"  # sgd | adam | adamw | lamb | rmsprop
    lr: float = 1e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    momentum: float = 0.9  # sgd, rmsprop
    nesterov: bool = False
    alpha: float = 0.99  # rmsprop
    weight_decay: float = 0.0
    clip: float = 0.0  # largest gradient norm; 0: no clipping
    schedule: str = "cosine"  # constant | cosine | step | linear
    warmup: int = 0  # images over which the rate rises linearly from 0
    steps: list[float] = field(default_factory=list)  # step: shares of the run, e.g. [0.5, 0.75]
    gamma: float = 0.1  # step: factor at each of them
    final: float = 0.0  # cosine, linear: last rate as a share of lr


@dataclass
class Ema:
    half_life: int = 0  # images; 0: no average is kept
    rampup: float = 0.05  # half-life is at most this share of the images seen


@dataclass
class Save:
    every: int = 50_000  # images between checkpoints
    last: int = 2  # how many of the newest stay
    best: int = 1  # how many of the best by the task's metric stay
    keep_every: int = 0  # images; checkpoints at its multiples stay for ever; 0: none


@dataclass
class Evaluate:
    every: int = 50_000  # images between evaluations on data.eval
    batch: int = 64  # pictures of one rank at a time


@dataclass
class Log:
    every: int = 2_000  # images between log lines and TensorBoard points (a tick)
    histograms: int = 0  # images between weight histograms; 0: none
    projector: int = 300  # thumbnails in TensorBoard's embedding projector; 0: none


@dataclass
class Engine:
    name: str = "ddp"  # ddp | flat
    bucket_mb: float = 25.0  # ddp: size of a gradient bucket


@dataclass
class Cluster:
    name: str = "local"


@dataclass
class Config:
    """A whole run. Lengths and schedules are in images seen, sizes in the global batch."""

    name: str = ""  # run name; empty: <task>-<date>-<time>
    runs: str = "runs"  # folder of the run directories
    seed: int = 0
    images: int = 1_000_000  # images seen in the whole run
    batch: int = 64  # pictures of all ranks in one update
    micro_batch: int = 0  # largest number of pictures of one rank at a time; 0: its whole share
    procs: int = 1  # ranks on each node
    nodes: int = 1
    precision: str = "auto"  # auto | fp32 | bf16 (autocast over fp32 parameters)
    channels_last: bool = True
    compile: bool = False
    deterministic: bool = False  # bit-equal on a GPU too, at a price; a CPU run always is
    norm_stats: str = "local"  # local | group | sync: what batch norm normalises over
    norm_group: int = 8  # group: consecutive pictures of the global batch
    desync_every: int = 1000  # updates between comparisons of the ranks' parameters; 0: never
    hang_timeout: int = 600  # seconds without an answer from a rank before the run ends
    wait: bool = False  # submit.py follows the run to its end
    dry_run: bool = False  # submit.py prints the plan and submits nothing
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    ema: Ema = field(default_factory=Ema)
    save: Save = field(default_factory=Save)
    eval: Evaluate = field(default_factory=Evaluate)
    log: Log = field(default_factory=Log)
    engine: Engine = field(default_factory=Engine)
    cluster: Cluster = field(default_factory=Cluster)
    task: dict[str, Any] = field(default_factory=dict)  # closed by conf/task/<name>.yaml; task.name is the job
