"""Keys that a job or its sets cannot fulfil: one line that says what to type, before anything is made."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.schema import Field
from launch.cli import main
from tests.support import tiny
from tests.support.marked import Marked, pack_marked
from tests.support.scenes import pack_scenes
from tests.support.sets import pack_set


class Counted(Marked):
    """The marks as numbers, and ages in whole years."""

    fields = {  # noqa: RUF012
        "marks": Field("value", "i1", (40,)),
        "age": Field("value", "f4"),
    }


@pytest.fixture(scope="module", autouse=True)
def _tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with tiny.submittable(tmp_path_factory.mktemp("conf") / "conf"):
        yield


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sets")
    pack_marked(folder / "marked", 20)
    counted = pack(Counted(20), folder / "counted", Request(), workers=1)[0].folder
    return {
        "scenes": pack_scenes(folder / "scenes").folder,
        "marked": folder / "marked" / "train",
        "counted": counted,
        "people": pack_set(folder / "people", identities=8, each=4) / "train",
    }


UNKNOWN, KIND = "has no label `", "is not one number a row: use one of identity, "
REFUSED = {
    # a field that the set does not have
    "pairs scenes data.a=hats==1": "data.a=hats==1: ",
    "siamese people data.rows=hats==1 optim.warmup=0": UNKNOWN,
    "marks marked data.order=weighted data.weights=hats": UNKNOWN,
    "marks marked data.order=balanced data.balance=hats": UNKNOWN,
    "marks marked data.order=mixed data.mix=hats==1:1": UNKNOWN,
    "marks scenes": "has no label `marks`, only identity, ",
    "mosaic people": "has no label `boxes`, only identity; pack a source that has it",
    # a field of another kind
    "marks counted": "the label `marks` is of the kind value, not bits; pack a source whose `marks` is of t",
    "pairs scenes data.a=boxes==1": KIND,
    "pairs scenes data.b=parts==1": KIND,
    "marks marked data.rows=marks==1": KIND,
    "marks marked data.order=weighted data.weights=marks": KIND,
    "marks marked data.order=balanced data.balance=age": "is not a class, its labels are not whole numbers:",
    # a subset without samples
    "pairs scenes data.a=breed==7": "matches none of the 24 rows",
    "marks marked data.rows=age>1000": "matches none of the ",
    "marks marked data.order=mixed data.mix=age>1000:1": "matches none of the ",
    # a batch of a stage, or of an op, that cannot be cut
    "growing people procs=5": "stage at clock 0: batch=24 is not divisible by 5 ranks: use 20 or 25",
    "growing people batch=10": "stage at clock 0 is 96 images long, which are no whole batches of 20: use 8",
    "growing people images=150": "stage at clock 192",
    "mosaic scenes batch=18": "batch=18 is not divisible by 1 ranks x 4 images that stay together: use 16 o",
    "mosaic scenes micro_batch=6": "micro_batch=6 is not divisible by 4 images that stay together: use 4 or",
    # an engine
    "growing people engine=ddp": "engine=ddp: task=growing does not run under it: use engine=flat",
    "centres people engine=deepspeed": "task=centres does not run under it: use engine=flat",
    # another run
    "adapting people init.run=nowhere": "init.run=nowhere: ",
    "adapting people init.freeze=[net.0.*]": "init.freeze=[net.0.*] has no effect without weights of a run:",
    # a player
    "growing people players.H.optim.lr=1": "unknown key players.H.optim.lr in players.H.optim.lr=1: did you",
    "growing people players.D.optim.lr=-1": "players.D.optim.lr=-1.0 is not positive: use a number above 0",
    "growing people players.D.optim.name=adamw2": "players.D.optim.name=adamw2 is not known",
    # keys of the view and of the order
    "mosaic scenes data.fit=crop": "data.fit=crop is not known: use",
    "mosaic scenes data.members=0": "data.members=0 is not positive",
    "mosaic scenes data.members=4": "data.members=4: task=mosaic takes 1 image a slot: use data.members=1",
    "mosaic scenes task.own=true": "data.members=1: task=mosaic takes 4 images a slot: use data.members=4",
    "mosaic scenes data.halves=true": "data.halves=true gives pairs of images, task=mosaic takes single one",
    "pairs scenes data.order=plain data.a= data.b=": "task=pairs takes pairs of images: use data.order=unpa",
    "pairs scenes data.train_b=/nowhere": "data.train_b=/nowhere does not exist: `rostro pack` makes it",
    "marks marked task.alpha=0": "task.alpha=0.0 is not positive: use a number above 0",
    "marks marked task.beta=1": "unknown key task.beta in task.beta=1: ",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_a_job_cannot_do_is_refused_at_submit_in_one_line(
    words: str,
    sets: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    task, data, *keys = words.split()
    fixed = ["cluster=local", "prepare=true", "name=bad", "images=288", f"data.train={sets[data]}"]
    typed = {word.partition("=")[0] for word in keys}
    assert (
        main(["submit", f"task={task}", *(w for w in fixed if w.partition("=")[0] not in typed), *keys]) == 2
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert REFUSED[words] in line
    assert not (tmp_path / "runs").exists()
