"""The only interface that a new job must know. A file in `hpc/tasks/` implements `Task`.

The trainer knows no task: it asks for players (what one optimizer updates), for the phases due at a clock,
and for a loss. The clock counts the images seen by all ranks together.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from data_shards.batch import Batch as Batch
from data_shards.ops.base import Op
from hpc.config.plan import Plan, kind_of, plan_of
from hpc.config.plan import Stage as Stage
from hpc.config.stages import fade_at, stage_at
from hpc.distributed.comm import Comm
from hpc.generator import Generator, Translator

if TYPE_CHECKING:
    from hpc.evaluation.base import Evaluator

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # a, b [n, d] -> [n], higher = the same person


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of the rows of a and b [n, d]; 0 where one is zero."""
    length = np.sqrt(np.einsum("nd,nd->n", a, a) * np.einsum("nd,nd->n", b, b))
    return np.einsum("nd,nd->n", a, b) / np.maximum(length, 1e-12)


@dataclass(frozen=True)
class Phase:
    """One backward and one optimizer step of one player.

    `coupled`: the loss looks at the whole global batch. The trainer then calls `Task.forward` for each micro
    batch and `Task.couple` once, with gradient caching where there are several micro batches.
    `collect`: whether the pass moves the running statistics of the player's batch norm; those of other
    players never move (None = yes, unless `second_order`: the phase that it regularises has counted its
    images).
    """

    name: str
    player: str
    every: int = 1  # updates
    coupled: bool = False
    second_order: bool = False
    collect: bool | None = None


@dataclass(frozen=True)
class Group:
    """The settings of some parameters of a player, found by name.

    lr: factor of the player's learning rate
    decay: weight decay of all of them (None = the player's, and none for norms and biases)
    frozen: whether they are never trained, and their batch norm layers keep the statistics that they have
    """

    lr: float = 1.0
    decay: float | None = None
    frozen: bool = False


@dataclass
class Rendered:
    """What is written of the prediction of one image."""

    record: dict[str, Any]  # a line of CSV or JSON: numbers, text, lists of them
    image: np.ndarray | None = None  # uint8 [h, w, 3], drawn on (None = the record is written below it)
    label: str = ""  # content of a label file (empty = none)


class Task:
    """A job, built from the run's config; it holds no distributed code."""

    # What the batch holds that `predict` is given: images, or positions alone (latents), or either of them
    takes: tuple[str, ...] = ("images",)
    # Whether `rostro predict` gives `render` the file's own pixels, in which the predicted boxes are
    whole_image: bool = False
    # The output of `predict` that is the probabilities of classes by pixel, [n, k, h, w] (empty = none):
    # `rostro predict` writes masks of it, at the size of the file, which `render` is given
    by_pixel: str = ""
    # `<evaluator>/<scalar>`, the figure that names the best checkpoint, and min | max
    metric: tuple[str, str] = ("loss", "min")
    # How the held-out set is judged: name -> what makes an evaluator, new and empty (hpc/evaluation/)
    evaluators: Mapping[str, Callable[[], "Evaluator"]] = {}
    # The images of `images` that also become files, RUN/samples/<name>/<clock>.png; a run that keeps averages
    # shows them of its raw networks too, as `<name>_raw`
    kept_images: tuple[str, ...] = ()
    # Further ones that a training has no use for: `rostro evaluate` alone judges by them
    later: Mapping[str, Callable[[], "Evaluator"]] = {}

    def __init__(self, config: Any) -> None:
        self.config = config  # hpc.config.schema.Config; the task's own keys are config.task[...]
        self.clock = 0  # of the weights that `predict` is given: whoever loads or trains them sets it
        # The trainer sets both: this rank, for losses over the whole global batch, and where scalars are
        # reported.
        self.comm = Comm()
        self.report: Callable[[str, Tensor], None] = lambda name, value: None
        # The fields of the run's sets by name, where they are known: names of classes for `render`
        self.known_fields: Mapping[str, Any] = {}
        # What the evaluators chose on val, by name, for `render`: temperatures, thresholds
        self.chosen: Mapping[str, Mapping[str, Any]] = {}

    @property
    def judged_by(self) -> dict[str, Callable[[], "Evaluator"]]:
        """What `rostro evaluate` judges by."""
        return {**self.later, **self.evaluators}

    @cached_property
    def plan(self) -> Plan:
        """What `hpc/tasks/<kind>_plan.py` states."""
        return plan_of(self.config.task)

    @cached_property
    def stages(self) -> list[Stage]:
        """The stages of the run, by their clocks."""
        return self.plan.stages(self.config)

    def players(self) -> dict[str, nn.Module]:
        """Build the networks, by player name, under the run's seed: one optimizer and one engine each."""
        raise NotImplementedError

    def frozen(self) -> dict[str, nn.Module]:
        """Build helpers that nothing trains, as an identity network; losses find them in `nets` by name.

        They are in eval mode, without gradients. A resume and `rostro evaluate` refuse other weights.
        """
        return {}

    def groups(self, player: str) -> dict[str, Group]:
        """Return settings of parameters of a player, by patterns of their names such as `trunk.*`.

        The first pattern that matches a name decides; the others have those of the player.
        """
        return {}

    def phases(self, clock: int) -> list[Phase]:
        """Return the phases of the update that starts at `clock`, in order."""
        raise NotImplementedError

    def stage(self, clock: int) -> Stage:
        """Return the stage of the update that starts at `clock`: its batch, size and level."""
        return stage_at(self.stages, clock)

    def fade(self, clock: int) -> float:
        """Return how far the level of the stage has come in at `clock`, from 0 to 1.

        A network that grows is built whole; its unused levels get no gradient, so it needs engine=flat.
        """
        return fade_at(self.stages, clock)

    def begin(self, sets: Mapping[str, Any]) -> None:
        """Look at the opened sets (`train`, `val`) before the first update, as to count labels.

        Every rank calls it at each start with the same sets; a streamed training set is not among them.
        """

    def ops(self, clock: int) -> list[Op]:
        """Return what the device does to the batch of the update that starts at `clock`, in order.

        The plan's `unit` states how many slots they keep together: `data_shards.ops.base.common_unit`.
        """
        return []

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        """Return the mean loss over `batch`, a scalar, for a phase that is not coupled."""
        raise NotImplementedError

    def forward(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        """Return what the loss of a coupled phase needs of each image of a micro batch, [n, d]."""
        raise NotImplementedError

    def couple(
        self, phase: Phase, nets: dict[str, nn.Module], outputs: Tensor, batch: Batch, clock: int
    ) -> Tensor:
        """Return this rank's loss of a coupled phase from the `outputs` [n, d] of its share of the batch.

        The mean over the ranks must be the loss of the global batch: gather with
        `hpc.distributed.collectives.gather_grad`.
        """
        raise NotImplementedError

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Any]:
        """Return the outputs for `batch.images`, which may have no labels: Tensor [n, ...] or Ragged.

        `batch.placed` says where the images lie in their files, for boxes, points and masks of a file. A task
        that `takes` latents answers a batch of positions without images with {"image": [n, 3, h, w]}.
        """
        raise NotImplementedError

    def generator(
        self, nets: Mapping[str, nn.Module], *, level: int | None = None, truncation: float | None = None
    ) -> Generator | None:
        """Return what makes images of latents (None = the task makes none). UserError for unfit options.

        level: of a network that grows, 0 at 4 pixels (None = the one that `self.clock` has reached)
        truncation: of styles, 0 = the mean image (None = the task's own)
        """
        return None

    def translator(self, nets: Mapping[str, nn.Module], *, direction: str = "") -> Translator | None:
        """Return what makes an image of an image (None = the task has none). UserError for unfit words.

        direction: which way, such as `ba`, of a task that knows more than one (empty = the task's own)
        """
        return None

    def graph(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Return what the graph of an export answers, tensors alone (by default what `predict` does).

        A task whose prediction is chosen among candidates, as boxes are, answers all of them.
        """
        return self.predict(nets, batch)

    def postprocessing(self) -> dict[str, Any] | None:
        """Return in words and numbers how the outputs of `graph` become predictions, for an export's card.

        None: they are the predictions.
        """
        return None

    def render(self, image: np.ndarray, prediction: dict[str, np.ndarray]) -> Rendered:
        """Return what is written of `prediction`, the outputs of `predict` for one image uint8 [h, w, 3].

        By default the record holds what the evaluators make of an output (a class by its name), and all
        other outputs as they are.
        """
        record: dict[str, Any] = {}
        for name, make in self.evaluators.items():
            evaluator = make()
            evaluator.chosen = self.chosen.get(name, {})
            record |= evaluator.record(prediction, self.known_fields)
        return Rendered(record or dict(prediction))

    @property
    def unit(self) -> str:
        """What a score of two embeddings is: cosine | probability."""
        return "cosine"

    def score(self, nets: dict[str, nn.Module]) -> Score:
        """Return the function that compares two embeddings."""
        return cosine

    def scorer(self, nets: dict[str, nn.Module]) -> nn.Module | None:
        """Return `score` as a module of two inputs for an export (None = the task compares no embeddings)."""
        return None

    def images(self, nets: dict[str, nn.Module], batch: Batch, clock: int) -> dict[str, Tensor]:
        """Return the images that the monitor shows: name -> [n, 3, h, w] in [-1, 1].

        Called without gradients and with the networks in eval mode.
        """
        return {"batch": next(iter(batch.images.values())).flatten(0, -4)[:32]}

    def judged(self, scalars: Mapping[str, float], clock: int) -> None:
        """Take note of what an evaluation of the training found, before the checkpoint of `clock`.

        Called on all ranks with the same scalars, none where the run has no held-out set. What it keeps for
        `ended` belongs in `state`, so that a resume decides the same.
        """

    def ended(self) -> bool:
        """Return whether the run ends before its `images`, asked after each update: by the state alone."""
        return False

    def state(self) -> dict[str, Any]:
        """Return the state: tensors and plain values in dicts and lists, the same at any world size."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""


def build_task(config: Any) -> Task:
    """Build the task of `hpc/tasks/<kind>.py`: the file's name is the registry."""
    task: Task = importlib.import_module(f"hpc.tasks.{kind_of(config.task)}").build(config)
    return task
