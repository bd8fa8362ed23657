"""Translated images against real ones of the other domain, beside the untranslated, at any world size."""

from pathlib import Path

import pytest
import torch

from data_shards.errors import UserError
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet
from hpc.distributed.comm import Comm
from hpc.evaluation.base import JudgedSet, Report
from hpc.evaluation.run import evaluate
from hpc.evaluation.translated import Translated
from hpc.generator import Translator
from hpc.task import Task
from tests.support.generating import small_features
from tests.support.ranks import launch
from tests.support.sets import pack_faces

DOMAINS = {"a": "domain==0", "b": "domain==1"}


class Same(Translator):
    """Leaves images as they are, or blackens them."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images):
        return images * self.factor + self.factor - 1


class Translates(Task):
    def __init__(self, make, factor):
        super().__init__(None)
        self.evaluators, self.factor = {"ab": make}, factor

    def translator(self, nets, *, direction=""):
        return Same(self.factor)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return pack_faces(tmp_path_factory.mktemp("faces"), "cyclegan", identities=14, each=4) / "train"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def judged(comm: Comm, folder: str, factor: float = 1.0, domains=DOMAINS) -> Report:  # type: ignore[no-untyped-def]
    def make() -> Translated:
        options = {"features": "small", "side": 16, "block": 3, "opener": small_features}
        return Translated("ab", pair=("a", "b"), domains=domains, view=View((16, 16)), **options)

    judged = JudgedSet(lambda comm: (), ShardSet.open(Path(folder)))
    return evaluate(Translates(make, factor), {}, judged, comm, channels_last=False)[0]["ab"]


def scalars(comm: Comm, folder: str) -> dict[str, float]:
    return judged(comm, folder, 0.5).scalars


@pytest.mark.parametrize("world", [2, 5])
def test_figures_are_the_same_at_any_world_size(shards, world, tmp_path):
    assert launch(scalars, world, str(shards)) == [scalars(Comm(), str(shards))] * world


def test_what_changes_nothing_is_as_far_as_the_untranslated(shards):
    report = judged(Comm(), str(shards))
    rows = {row[0]: row[1:] for row in report.tables["distances"].rows}
    assert rows["generated"] == rows["real, untranslated"]
    labels = ShardSet.open(shards).labels["domain"]
    assert rows["generated"][-1] == (labels == 0).sum()
    assert report.scalars["frechet"] > 0
    darker = judged(Comm(), str(shards), 0.2)
    assert darker.scalars["frechet"] > 2 * report.scalars["frechet"]
    other = {row[0]: row[1:] for row in darker.tables["distances"].rows}
    assert other["real, untranslated"] == rows["real, untranslated"]  # kept, and of its own domain
    assert torch.isfinite(torch.tensor(list(darker.scalars.values()))).all()


def test_a_set_without_one_of_the_domains_is_refused(shards):
    with pytest.raises(UserError, match=r"hold no images of b, whose training set is data.train_b"):
        judged(Comm(), str(shards), domains={"a": "set"})
    with pytest.raises(UserError, match=r"data\.b=domain==7 matches none of"):
        judged(Comm(), str(shards), domains=DOMAINS | {"b": "domain==7"})
