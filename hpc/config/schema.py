"""Every key that all tasks share, as dataclasses: default, meaning and allowed values. Imports no torch.

Reading, writing and comparing configs is in `hpc/config/parse.py`, what keys refuse together in
`hpc/config/check.py`.
"""

from dataclasses import dataclass, field
from typing import Any

from hpc.config.optimizers import OPTIMIZERS, readers
from hpc.config.rules import block, key


@dataclass
class Augment:
    """Random augmentation of a training image. All zero and `crop_area=[1, 1]`: centre crop only."""

    crop_area: list[float] = key(
        [0.5, 1.0], "share of the image's area that a crop takes: smallest, largest", above=0, most=1
    )
    crop_ratio: list[float] = key([0.75, 1.3333], "width / height of the crop: smallest, largest", above=0)
    flip: float = key(0.5, "probability of a mirror image", least=0, most=1)
    brightness: float = key(0.2, "x: the factor is drawn from [1 - x, 1 + x]", least=0)
    contrast: float = key(0.2, "x: the factor is drawn from [1 - x, 1 + x]", least=0)
    saturation: float = key(0.2, "x: the factor is drawn from [1 - x, 1 + x]", least=0)
    hue: float = key(0.0, "x: degrees, drawn from [-x, x]", least=0)


@dataclass
class Data:
    set: str = key("", "name of a packed set: $ROSTRO_SHARDS/NAME/train, /val, /eval")
    train: str = key("", "folder of the training shards; overrides data.set")
    val: str = key(
        "", "folder of the people who choose checkpoint and threshold; empty: ../val, if it is there"
    )
    eval: str = key(
        "", "folder of the people of the report; empty: ../eval, if it is there; without val it does both"
    )
    allow_shared: bool = key(False, "train although train, val and eval share people")
    size: int = key(112, "pixels, side of the square image that the network sees", least=1, cap=1 << 13)
    fit: str = key(
        "cover",
        "how an image fills the square; cover: cut; contain: whole, with padding; stretch: whole, distorted",
        one_of=("cover", "contain", "stretch"),
    )
    halves: bool = key(False, "a stored image is two side by side, A | B: images `a` and `b` of a batch")
    order: str = key(
        "plain",
        "of the samples; groups: P x K identities, K = data.group; unpaired: A and B side by side",
        one_of=("plain", "groups", "unpaired", "weighted", "balanced", "mixed"),
    )
    a: str = key("", "order=unpaired: which samples are A, by labels: `gender==0`; empty: every one")
    b: str = key("", "order=unpaired: which samples are B, by labels; empty: every one")
    train_b: str = key("", "order=unpaired: folder of the shards of B; empty: both are in data.train")
    members: int = key(
        1, "images of a slot, each another draw: 4 for a mosaic of own images", least=1, cap=1 << 6
    )
    group: int = key(4, "K: images of one identity that stand together in the batch", least=1)
    rows: str = key(
        "set", "which samples are trained on, by labels: `age>=18 and race==0`; @FILE: those listed; set: all"
    )
    weights: str = key("", "order=weighted: the label in proportion to which samples come, or @FILE: a list")
    balance: str = key("", "order=balanced: the label whose classes come equally often")
    mix: str = key("", "order=mixed: rows and their shares of the slots: `race==0:0.3; race!=0:0.7`")
    backend: str = key("auto", "who decodes; auto: dali where it runs", one_of=("auto", "dali", "host"))
    stage: str = key(
        "",
        "node-local folder a job first copies its shards to: /scratch/NAME or $TMPDIR/NAME; empty: none",
    )
    twins: list[int] = key(
        [],
        "twins of data.train (`rostro twins`) that training reads where they have enough pixels, as [64,256]",
        least=8,
        most=4096,
    )
    stream: bool = key(False, "read shards in sequence only (pipes, URLs): weaker guarantees")
    threads: int = key(2, "decoding threads of a rank", least=1, cap=1 << 10)
    ahead: int = key(4, "batches decoded ahead of the step", least=1, cap=1 << 10)
    augment: Augment = block(Augment)


@dataclass
class Optim:
    name: str = key("adamw", "optimizer", one_of=tuple(OPTIMIZERS))
    impl: str = key("torch", "whose code; apex: NVIDIA's fused kernels, a GPU only", one_of=("torch", "apex"))
    lr: float = key(1e-3, "learning rate at its highest", above=0)
    betas: list[float] = key([0.9, 0.999], f"{readers('betas')}: the two decays", least=0, below=1)
    eps: float = key(1e-8, "added to the denominator", above=0)
    momentum: float = key(0.9, f"{readers('momentum')}: share of the last step that stays", least=0)
    nesterov: bool = key(False, f"{readers('nesterov')}: Nesterov's momentum")
    alpha: float = key(0.99, f"{readers('alpha')}: decay of the squares", least=0, most=1)
    weight_decay: float = key(0.0, "pull of weights towards 0; biases and norms are left out", least=0)
    clip: float = key(0.0, "largest gradient norm; 0: no clipping", least=0)
    schedule: str = key("cosine", "how the rate falls", one_of=("constant", "cosine", "step", "linear"))
    warmup: int = key(0, "images over which the rate rises linearly from 0", least=0)
    warmup_momentum: float = key(
        0.0,
        "momentum, or the first of betas, from which it rises during the warm-up; 0: it is as after it",
        least=0,
        below=1,
    )
    warmup_bias: float = key(
        0.0,
        "rate of the biases from which it falls to the common one during the warm-up; 0: as of all others",
        least=0,
    )
    hold: float = key(
        0.0, "cosine, linear: share of the run in which the rate stays before it falls", least=0, below=1
    )
    steps: list[float] = key([], "step: rising shares of the run, as [0.5,0.75]", above=0, below=1)
    gamma: float = key(0.1, "step: factor at each of them", above=0, most=1)
    final: float = key(0.0, "cosine, linear: last rate as a share of lr", least=0, most=1)


@dataclass
class Ema:
    half_life: int = key(0, "images; 0: no average is kept", least=0)
    rampup: float = key(0.05, "the half-life is at most this share of the images seen", least=0)


@dataclass
class Init:
    run: str = key("", "run, by name or folder, with whose weights this one begins; empty: none")
    checkpoint: str = key("best", "of init.run: best, last or a clock")
    skip: list[str] = key([], "tensors that stay as they are initialised, by patterns: [net.head.*]")
    freeze: list[str] = key([], "parameters that are never trained, by patterns: [net.trunk.*]")


@dataclass
class Save:
    every: int = key(50_000, "images between checkpoints", least=1)
    last: int = key(2, "how many of the newest stay", least=1)
    best: int = key(1, "how many of the best by the task's metric stay", least=0)
    keep_every: int = key(0, "images; checkpoints at its multiples stay for ever; 0: none", least=0)
    mode: str = key(
        "sync", "async: a copy in host memory, written while training goes on", one_of=("sync", "async")
    )


@dataclass
class Evaluate:
    every: int = key(50_000, "images between evaluations on data.val, or else data.eval", least=1)
    batch: int = key(64, "images of one rank at a time", least=1, cap=1 << 20)


@dataclass
class Log:
    every: int = key(2_000, "images between log lines and TensorBoard points", least=1)
    histograms: int = key(0, "images between weight histograms; 0: none", least=0)
    projector: int = key(
        300, "thumbnails in TensorBoard's embedding projector; 0: none", least=0, cap=1 << 16
    )


@dataclass
class DeepSpeed:
    stage: int = key(
        1,
        "ZeRO: 0 splits nothing over the ranks, 1 optimizer state, 2 and gradients, 3 and parameters",
        one_of=(0, 1, 2, 3),
    )
    offload: bool = key(False, "optimizer state (stage 3: parameters too) in host memory")
    config: str = key(
        "", "a DeepSpeed JSON file merged into ours; keys that contradict the config are refused"
    )


@dataclass
class Engine:
    name: str = key("ddp", "how ranks share gradients", one_of=("ddp", "deepspeed", "flat"))
    bucket_mb: float = key(25.0, "size of a gradient bucket in MB; flat: on a GPU alone", above=0)
    deepspeed: DeepSpeed = block(DeepSpeed)


@dataclass
class Cluster:
    """Where ranks run. A site's own values: $ROSTRO_SITE, or ~/.config/rostro/site.yaml (docs/cluster.md)."""

    name: str = key(
        "auto", "auto: slurm where a SLURM answers, else local", one_of=("auto", "slurm", "local")
    )
    partition: str = key("", "sbatch's key of that name; empty: the cluster's default")
    account: str = key("", "sbatch's key of that name; empty: the cluster's default")
    qos: str = key("", "sbatch's key of that name; empty: the cluster's default")
    constraint: str = key("", "sbatch's key of that name; empty: the cluster's default")
    mem_gb: float = key(0.0, "memory of a node; 0: the cluster's default", least=0, cap=1 << 20)
    cpus: int = key(0, "cores of a rank; 0: the cluster's default", least=0, cap=1 << 16)
    modules: list[str] = key([], "`module load` of each")
    setup: list[str] = key([], "shell lines, executed as they stand before the ranks start")
    container: str = key("", "Apptainer image in which the ranks run; empty: none")
    sbatch: dict[str, Any] = key({}, "any other option of sbatch: {exclusive: true, reservation: lab}")
    warning: int = key(
        120,
        "seconds before the time limit at which SLURM signals: one step and one save must fit",
        least=1,
        cap=1 << 20,
    )
    attempts: int = key(3, "starts in a row without progress before a run gives up", least=1)


@dataclass
class Config:
    """A whole run. Lengths and schedules are in images seen, sizes in the global batch."""

    name: str = key("", "of the run directory; empty: <task>-<date>-<time>")
    runs: str = key("runs", "folder of the run directories")
    seed: int = key(0, "of everything that is drawn", least=0)
    images: int = key(1_000_000, "length: images seen in the whole run", least=1)
    batch: int = key(64, "images of all ranks in one update", least=1, cap=1 << 22)
    micro_batch: int = key(0, "largest number of images of one rank at a time; 0: its whole share", least=0)
    procs: int = key(1, "ranks on each node", least=1, cap=1 << 10)
    nodes: int = key(1, "machines", least=1, cap=1 << 17)
    gpus: int = key(0, "SLURM: GPUs asked for on each node; 0: none", least=0, cap=1 << 10)
    hours: float = key(
        24.0,
        "SLURM: time limit of one allocation; a longer run resumes in the next one",
        above=0,
        cap=24 * 3660,
    )
    after: str = key("", "SLURM: a run (or job id) that must have ended well before this one starts")
    precision: str = key("auto", "bf16: autocast over fp32 parameters", one_of=("auto", "fp32", "bf16"))
    channels_last: bool = key(True, "memory layout of images and filters; faster on a GPU")
    compile: bool = key(False, "torch.compile")
    deterministic: bool = key(False, "bit-equal on a GPU too, at a price; a CPU run always is")
    norm_stats: str = key("local", "what batch norm normalises over", one_of=("local", "group", "sync"))
    norm_group: int = key(8, "norm_stats=group: consecutive images of the global batch", least=1)
    desync_every: int = key(1000, "updates between comparisons of the ranks' parameters; 0: never", least=0)
    hang_timeout: int = key(
        600, "seconds without an answer from a rank before the run ends", least=1, cap=1 << 30
    )
    wait: bool = key(False, "follow the run to its end and return its exit code")
    dry_run: bool = key(False, "print the plan and start nothing")
    prepare: bool = key(False, "make the run directory and print the torchrun line; start nothing")
    data: Data = block(Data)
    optim: Optim = block(Optim)
    ema: Ema = block(Ema)
    # of one player, over the two above: players.G.optim.lr; hpc/config/players.py
    players: dict[str, Any] = field(default_factory=dict)
    init: Init = block(Init)
    save: Save = block(Save)
    eval: Evaluate = block(Evaluate)
    log: Log = block(Log)
    engine: Engine = block(Engine)
    cluster: Cluster = block(Cluster)
    # closed by conf/task/<name>.yaml; task.name is the job; its rules are KEYS in hpc/tasks/<name>_plan.py
    task: dict[str, Any] = field(default_factory=dict)
