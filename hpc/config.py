"""The schema of a run: every key that all tasks share, as dataclasses. Imports no torch.

A task adds its own closed block of keys under `task` (`launch/conf/task/<name>.yaml`); `launch/submit.py`
composes both with Hydra and writes the result, `RUN/config.yaml`, which is all that a rank reads.
"""

import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from data_shards.errors import UserError


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
    stage: str = (
        ""  # node-local folder to which a job copies its shards first; environment variables are expanded
    )
    stream: bool = False  # read shards in sequence only (pipes, URLs): weaker guarantees, see docs
    threads: int = 2  # decoding threads of a rank
    ahead: int = 4  # batches decoded ahead of the step
    augment: Augment = field(default_factory=Augment)


@dataclass
class Optim:
    name: str = "adamw"  # sgd | adam | adamw | lamb | novograd | rmsprop
    impl: str = "torch"  # torch | apex (NVIDIA Apex's fused kernels; a GPU only)
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
    mode: str = "sync"  # sync | async: a copy in host memory, written by a thread while training goes on


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
class DeepSpeed:
    stage: int = (
        1  # ZeRO: 0 nothing is split over the ranks, 1 optimizer state, 2 and gradients, 3 and parameters
    )
    offload: bool = False  # optimizer state (stage 3: parameters too) in host memory
    config: str = ""  # a DeepSpeed JSON file merged into ours; keys that contradict this config are refused


@dataclass
class Engine:
    name: str = "ddp"  # ddp | deepspeed | flat
    bucket_mb: float = 25.0  # ddp: size of a gradient bucket
    deepspeed: DeepSpeed = field(default_factory=DeepSpeed)


@dataclass
class Cluster:
    """Where ranks run. A site's own values: $ROSTRO_SITE, or ~/.config/rostro/site.yaml (docs/cluster.md)."""

    name: str = "auto"  # auto (slurm where a SLURM answers, else local) | slurm | local
    partition: str = ""  # the key of sbatch of that name; empty: the cluster's default
    account: str = ""
    qos: str = ""
    constraint: str = ""
    mem_gb: float = 0.0  # memory of a node; 0: the cluster's default
    cpus: int = 0  # cores of a rank; 0: the cluster's default
    modules: list[str] = field(default_factory=list)  # `module load` of each
    setup: list[str] = field(default_factory=list)  # shell lines before the ranks start
    container: str = ""  # Apptainer image in which the ranks run; empty: none
    sbatch: dict[str, Any] = field(
        default_factory=dict
    )  # any other option: {exclusive: true, reservation: lab}
    warning: int = 120  # seconds before the time limit at which SLURM signals: one step and one save must fit
    attempts: int = 3  # starts in a row that bring the clock no further before a run gives up


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
    gpus: int = 0  # GPUs asked of SLURM on each node; 0: none asked
    hours: float = 24.0  # SLURM: time limit of one allocation; a longer run goes on in the next one
    after: str = ""  # SLURM: a run (or job id) that must have ended well before this one starts
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
    prepare: bool = False  # submit.py makes the run directory and prints the torchrun line; starts nothing
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    ema: Ema = field(default_factory=Ema)
    save: Save = field(default_factory=Save)
    eval: Evaluate = field(default_factory=Evaluate)
    log: Log = field(default_factory=Log)
    engine: Engine = field(default_factory=Engine)
    cluster: Cluster = field(default_factory=Cluster)
    task: dict[str, Any] = field(
        default_factory=dict
    )  # closed by conf/task/<name>.yaml; task.name is the job


# Keys that change no number of the run, or only the order in which the same numbers are summed. Everything else is
# part of the run's identity. Folders of data may move; their content is held by the manifests' digests.
FREE = frozenset(
    (
        *("name", "runs", "procs", "nodes", "gpus", "hours", "after", "wait", "dry_run", "prepare"),
        *("log", "engine", "cluster", "save.mode", "data.stage", "optim.impl"),
        *("micro_batch", "desync_every", "hang_timeout", "eval.batch"),
        *("save.last", "save.best", "save.keep_every"),
        *("data.set", "data.train", "data.eval", "data.threads", "data.ahead"),
    )
)


CONF = Path(__file__).resolve().parents[1] / "launch" / "conf"


def smoke_overrides(task: str) -> list[str]:
    """The `smoke` block of conf/task/<task>.yaml as `key=value` words: small sizes, the same code paths."""
    path = CONF / "task" / f"{task}.yaml"
    if not path.is_file():
        known = [other.stem for other in path.parent.glob("*.yaml")]
        raise UserError(f"task={task} is not known: {near(task, known, what='task')}")
    block = (yaml.safe_load(path.read_text()) or {}).get("smoke") or {}
    return [
        f"{key}={json.dumps(value) if isinstance(value, bool) else value}" for key, value in block.items()
    ]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def is_free(key: str) -> bool:
    """Whether a dotted key may change when a run is resumed."""
    return key in FREE or key.split(".")[0] in FREE


def numbers(config: Config) -> dict[str, Any]:
    """The dotted keys that change the numbers of a run, with their values."""
    return {key: value for key, value in flatten(dataclasses.asdict(config)).items() if not is_free(key)}


def identity(config: Config) -> str:
    """Hash of the keys that change numbers: equal for a run and its resumed continuation."""
    text = json.dumps(numbers(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changed(before: Config, after: Config) -> list[str]:
    """The keys that change numbers and differ between two configs, as `key=new (was old)`."""
    old, new = numbers(before), numbers(after)
    keys = sorted(set(old) | set(new))
    return [f"{key}={new.get(key)} (was {old.get(key)})" for key in keys if old.get(key) != new.get(key)]


def near(word: str, known: Iterable[str], *, what: str = "key") -> str:
    """The remedy of an unknown word: the nearest known one, or all of them."""
    known = sorted(known)
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not match and "." in word:  # optim.learning: show what optim has
        group = word.rsplit(".", 1)[0] + "."
        known = [key for key in known if key.startswith(group)] or known
    if match:
        return f"did you mean {match[0]}?"
    if len(known) > 20:
        known = sorted({key.split(".")[0] + (".*" if "." in key else "") for key in known})
    return f"known {what}s: {', '.join(known)}" if known else f"there is no {what} here"


def from_dict(values: Mapping[str, Any], kind: type = Config, prefix: str = "") -> Any:
    """Build the dataclass `kind` from nested mappings, strictly: an unknown key or a wrong type is a UserError."""
    fields = {item.name: item for item in dataclasses.fields(kind)}
    default = kind()
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"unknown key {prefix}{key}={value}: {near(key, fields)}")
        like = getattr(default, key)
        if dataclasses.is_dataclass(like):
            if not isinstance(value, Mapping):
                raise UserError(f"{prefix}{key}={value} is a group of keys: write {prefix}{key}.KEY=VALUE")
            built[key] = from_dict(value, type(like), f"{prefix}{key}.")
        else:
            built[key] = as_type(f"{prefix}{key}", value, like)
    return kind(**built)


def as_type(key: str, value: Any, like: Any) -> Any:
    """`value` if it has the type of the default `like` (whole numbers pass as float), else UserError."""
    if like is None or isinstance(like, Mapping):
        return value
    if isinstance(like, list):
        if not isinstance(value, list | tuple):
            raise UserError(f"{key}={value} is not a list: write {key}=[{value}]")
        return [as_type(key, item, like[0]) if like else item for item in value]
    if isinstance(like, float) and type(value) is int:
        return float(value)
    if type(value) is not type(like):
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[type(like)]
        example = json.dumps(like) if isinstance(like, bool) else "..." if like == "" else like
        raise UserError(f"{key}={value} is not {wanted}: type for example {key}={example}")
    return value


def load_config(path: Path | str) -> Config:
    """Read a resolved config back, strictly."""
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        reason = str(error).replace(chr(10), " ")
        raise UserError(f"{path} cannot be read as a run's config ({reason}): give a run directory") from None
    if not isinstance(values, Mapping):
        raise UserError(f"{path} holds no config: give a run directory")
    config: Config = from_dict(values)
    return config


def save_config(config: Config, path: Path | str) -> None:
    """Write the config whole, under a temporary name first."""
    path = Path(path)
    draft = path.with_name(f".{path.name}")
    draft.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))
    os.replace(draft, path)
