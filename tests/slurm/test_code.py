"""Job arrays, and the code of a job: the copy in its run directory, whatever becomes of the checkout."""

from pathlib import Path

import pytest

from hpc.checkpoints import store
from tests.slurm.conftest import Cluster
from tests.slurm.jobs import Field, copy_checkout
from tests.support.sets import pack_set

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def field(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Field:
    folder = tmp_path_factory.mktemp("code")
    return Field(cluster, folder, pack_set(folder / "set"), copy_checkout(folder / "checkout"))


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def test_an_array_of_two_runs_dies_inside_a_save_and_goes_on_with_the_old_code(field: Field) -> None:
    """Index 0 dies in its save, after which the checkout is broken; index 1 is the undisturbed run."""
    fault = {"ROSTRO_FAULT": "savecommit@192", "ROSTRO_FAULT_INDEX": "0"}
    more = {"images": 480, "seed": 7}
    job = field.sbatch("--nodes=4", "--array=0-1", name="array", variables=fault, **more)
    for name in ("array-0", "array-1"):
        field.wait(f"the code of {name}", lambda name=name: field.run(name).config_file.exists())
    for file in ("hpc/train.py", "hpc/rank.py", "launch/batch.py", "slurm/job.sh"):
        path = field.checkout / file
        path.write_text("exit 3\n" if path.suffix == ".sh" else "raise SystemExit('the new code')\n")
    field.wait_restart(f"{job}_0", 1)
    assert [path.name for path in store.listing(field.run("array-0").path)] == ["000000000096"]
    for index in (0, 1):
        field.assert_completed(f"{job}_{index}")
    assert field.restarts(f"{job}_1") == 0
    assert "the new code" not in field.logs()
    field.assert_like(field.run("array-1"), "array-0")


def test_a_foreign_package_named_models_is_refused_by_name(field: Field, tmp_path: Path) -> None:
    """Where Python finds it before the run's code. Behind that, as a rule, it does no harm."""
    foreign = tmp_path / "foreign"
    (foreign / "models").mkdir(parents=True)
    (foreign / "models" / "__init__.py").write_text("")
    ours = Field(field.cluster, field.folder, field.shards)
    first = f"export PYTHONPATH={foreign}:$PYTHONPATH"
    jobs = {}
    for name, lines in (("behind", [first]), ("before", [first, "export PYTHONSAFEPATH=1"])):
        jobs[name] = ours.submit(name, nodes=1, images=96, **{"cluster.setup": lines})
    ours.assert_completed(jobs["behind"])
    assert ours.wait_ended(jobs["before"]) == "FAILED"
    log = ours.run("before").log(0).read_text()
    assert "a foreign package named models is first on the path" in log
    assert f"take {foreign} off PYTHONPATH" in log
    assert not list(ours.run("before").checkpoints.iterdir())
