"""Words of the command line, the site file and a task's yaml: strict types at every depth, and precedence.

Remedies are accepted when they are typed.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_shards.errors import UserError
from hpc.config.check import all_rules, check
from hpc.config.parse import load_config, save_config
from hpc.config.plan import plan_of
from hpc.config.schema import Config
from hpc.config.types import ITEMS, flatten
from launch.options import compose
from launch.options import conf as options_conf
from launch.options.compose import known_keys, task_keys
from launch.options.conf import plan_of_task, smoke_overrides
from launch.options.other_words import OURS, SAME, answer
from tests.support.fuzz import check_refusal

KEYS = known_keys("siamese")
EXAMPLES = task_keys("siamese")
EXAMPLE = re.compile(r"(?:for example|write|use) ([a-z_.]+=(?:\[[^\]]*\]|\{[^}]*\}|[^\s,]+))")
# A choice, a limit, a divisor: what may stand there is listed.
REMEDY = re.compile(r": use [\w.]+ or |: `rostro submit -m| at least|: leave|use \d+|needs")


def composed(words: Sequence[str]) -> Config:
    """The config of a siamese run, unless the words name another task."""
    return compose.composed(["task=siamese", *words])


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as error:
        check(composed(words), EXAMPLES)
    check_refusal(error.value)
    return str(error.value)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the configs, in which a test may write another task."""
    import shutil

    folder = tmp_path / "conf"
    shutil.copytree(compose.CONF, folder)
    for module in (compose, options_conf):
        monkeypatch.setattr(module, "CONF", folder)
    caches = (compose.task_yaml, compose._tree)
    for cached in caches:
        cached.cache_clear()
    yield folder
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.stream=1_000", "data.stream=1000 is not true or false: type for example data.stream=false"),
        ("data.stream=1", "is not true or false"),
        ("data.stream=yes", "is not true or false"),
        ("batch=true", "batch=true is not a whole number"),
        ("batch=64.0", "is not a whole number"),
        ("batch='64'", "is not a whole number"),
        ("optim.lr=fast", "optim.lr=fast is not a number: type for example optim.lr=0.003"),
        ("optim.lr=true", "is not a number"),
        ("optim.lr=${seed}", "is not a number"),
        ("optim.betas=[0.9,true]", "is not a list of numbers: write for example optim.betas=[0.9,0.999]"),
        ("optim.steps=0.5", "is not a list: write optim.steps=[0.5]"),
        ("cluster.modules=[12.10]", "is not a list of words: write for example cluster.modules=[cuda]"),
        ("cluster.modules=cuda", "is not a list: write cluster.modules=[cuda]"),
        ("cluster.sbatch=5", "is not a group of values: type for example cluster.sbatch={exclusive:true}"),
        ("cluster.sbatch={a:[1]}", "type for example cluster.sbatch={exclusive:true}"),
        ("data.augment.crop_area=0.5", "is not a list: write data.augment.crop_area=[0.8,1.0]"),
        ("data.augment.crop_area=[0.5]", "for example data.augment.crop_area=[0.5,1.0]"),
        ("cluster.name=garbage", "cluster.name=garbage is not known: use auto or slurm or local"),
        ("task.name=a.b", "task.name=a.b is no file in hpc/tasks"),
        ("task.name=siamese_plan", "is no file in hpc/tasks"),
        ("name=a/b", "is not a folder's name"),
        ("name=a\nb", r"name=a\nb holds '\n', which cannot be printed"),
        ("seed=0,1", "seed=0,1 is several values: `rostro submit -m ...`"),
        ("batch=[", "batch=[ cannot be read: type for example batch=64"),
        ("images=" + "9" * 5000, "cannot be read"),
        ("images=10_000_000_000_000_000_000", "is too large"),
        ("batch=100_000_000", "use 4194304 or less"),
        ("smoke=1", "smoke=1 is not true or false"),
        ("crop_area=0.5", "unknown key crop_area in crop_area=0.5: did you mean data.augment.crop_area?"),
        ("hydra.run.dir=x", "unknown key hydra.run.dir"),
        ("+batch=3", "keys are neither added nor removed here"),
        ("batch", "batch is not key=value"),
    ],
)
def test_a_word_of_another_type_is_refused(word: str, message: str) -> None:
    assert message in refusal(word)


def test_text_is_taken_as_it_stands() -> None:
    """Hydra's interpolation would read variables, the config, and run resolvers."""
    for text in ("${oc.env:HOME}", "a=b", "{x}", "1e-3", "null", "true", "'quoted'", "[1]", "a,b"):
        assert composed([f"data.train={text}"]).data.train == text.strip("'")
    assert composed(["cluster.setup=['echo ${HOME}']"]).cluster.setup == ["echo ${HOME}"]


def test_every_list_without_a_default_has_a_type() -> None:
    empty = [key for key, value in flatten(dataclasses.asdict(Config())).items() if value == []]
    assert sorted(empty) == sorted(ITEMS)


def bad_values(key: str) -> list[str]:
    """Words for a checked key that are outside of its type or range."""
    rule, default = all_rules(plan_of_task("siamese"))[key], KEYS[key]
    if isinstance(default, str):
        return ["garbage"] if rule.one_of else []
    numbers: list[Any] = ["text", "-1", "nan", "1e400", "-0.5", "0", "2"]
    return [*numbers, "[]", "[1,0]", f"[{default}]", str((rule.cap or -2) + 1), str(10**30)]


@pytest.mark.parametrize("key", [key for key in all_rules(plan_of_task("siamese")) if key != "smoke"])
def test_a_remedy_is_accepted(key: str) -> None:
    """Type a bad value into each checked key, then the example that its refusal shows."""
    beside = ["init.run=people"] if key.startswith("init.") and key != "init.run" else []
    for value in bad_values(key):
        try:
            check(composed([*beside, f"{key}={value}"]), EXAMPLES)
        except UserError as error:
            check_refusal(error, key)
            found = EXAMPLE.search(str(error))
            if found is not None:
                check(composed([*beside, found[1]]))
            elif not REMEDY.search(str(error)):
                pytest.fail(str(error))


def test_a_key_below_a_group_of_a_task_is_typed_too(conf: Path) -> None:
    path = conf / "task" / "siamese.yaml"
    nested = "  optim:\n    G: {lr: 0.1, names: [a]}\n    steps: {}\n"
    path.write_text(path.read_text().replace("  mirror: true", "  mirror: true\n" + nested, 1))
    assert composed(["task.optim.G.lr=1"]).task["optim"]["G"]["lr"] == 1.0
    assert "task.optim.G.lr=fast is not a number" in refusal("task.optim.G.lr=fast")
    assert "unknown key task.optim.G.lrr in task.optim.G.lrr=1: did you mean" in refusal("task.optim.G.lrr=1")
    assert "is a group of keys" in refusal("task.optim.G=1")
    assert "not a list of words" in refusal("task.optim.G.names=[1]")
    with pytest.raises(UserError, match=r"unknown key task\.optim\.steps\.x"):
        compose.finish({"task": {"name": "siamese", "optim": {"steps": {"x": 1}}}}, task="siamese")


def test_the_words_of_a_task_win_over_defaults_and_lose_against_what_was_typed(
    conf: Path, tmp_path, monkeypatch
) -> None:
    """Also where a group of Hydra has the same key."""
    mine = {
        "engine": {"name": "flat", "bucket_mb": 9.0},
        "cluster": {"warning": 99},
        "optim": {"name": "sgd", "lr": 0.5},
        "ema": {"half_life": 7},
        "data": {"size": 64, "augment": {"flip": 0.25}},
        "save": {"every": 96, "mode": "async"},
        "eval": {"every": 192},
        "batch": 32,
    }
    path = conf / "task" / "other.yaml"
    content = compose.task_yaml("siamese")
    path.write_text(
        "# @package _global_\n" + json.dumps({"data": {"order": "groups"}, "task": content["task"]} | mine)
    )
    for cached in (compose.task_yaml, compose._tree):
        cached.cache_clear()
    typed = {
        "engine.name": "ddp",
        "engine.bucket_mb": 5.0,
        "optim.lr": 0.25,
        "ema.half_life": 3,
        "data.size": 32,
        "save.mode": "sync",
        "eval.every": 64,
        "batch": 16,
    }

    def values(*words: str) -> dict[str, Any]:
        return flatten(dataclasses.asdict(composed(["task=other", *words])))

    found = values()
    assert {key: found[key] for key in flatten(mine)} == flatten(mine)
    for key, value in typed.items():
        assert values(f"{key}={value}")[key] == value
    assert values("engine=ddp")["engine.name"] == "ddp"
    assert values("engine=flat")["engine.bucket_mb"] == 9.0
    assert values("cluster=local")["cluster.name"] == "local"
    site = tmp_path / "site.yaml"
    site.write_text("cluster: {warning: 60, name: slurm}\n")
    monkeypatch.setenv("ROSTRO_SITE", str(site))
    assert values()["cluster.warning"] == 60
    assert values("cluster.warning=30")["cluster.warning"] == 30
    assert (values()["cluster.name"], values("cluster=local")["cluster.name"]) == ("slurm", "local")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch: many", "batch=many is not a whole number"),
        ("data: {stream: 1}", "data.stream=1 is not true or false"),
        ("smoke: 5", "smoke is not a group of keys"),
        ("bach: 5", "bach"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_task_yaml_that_is_wrong_is_named(conf: Path, text: str, message: str) -> None:
    (conf / "task" / "other.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(UserError) as error:
        composed(["task=other"])
    check_refusal(error.value, "other")
    assert message in str(error.value)


def test_a_config_of_a_run_has_the_types_of_its_task(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    (tmp_path / "code").symlink_to(Path(__file__).parents[3])
    config = composed([])
    save_config(config, path)
    assert load_config(path) == config
    path.write_text(path.read_text().replace("margin: 1.0", "margin: 1"))
    assert type(load_config(path).task["margin"]) is float
    for old, new, message in (
        ("margin: 1.0", "margin: wide", "task.margin=wide is not a number"),
        ("margin: 1.0", "margin: {}", "task.margin={} is not a number"),
        ("embedding: 128", "embedding: true", "task.embedding=true is not a whole number"),
        ("batch: 64", "batch: '64'", "batch=64 is not a whole number"),
        ("sbatch: {}", "sbatch: 1", "cluster.sbatch=1 is not a group"),
        ("name: siamese", "name: 5", "task.name=5 is not the name of a task"),
    ):
        save_config(config, path)
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(UserError) as error:
            load_config(path)
        check_refusal(error.value, str(path))
        assert message in str(error.value)


def test_smoke_takes_the_block_of_the_yaml_and_loses_against_words() -> None:
    plain = {word.partition("=")[0] for word in smoke_overrides("siamese")}
    small, mine = composed(["smoke=true"]), composed(["images=1024", "smoke=true"])
    assert (small.images, small.batch, small.task["trunk"], small.data.size) == (512, 16, "small", 32)
    assert dataclasses.replace(mine, images=512) == small
    assert composed(["smoke=false"]) == composed([])
    assert {"images", "batch", "task.trunk"} <= plain


@pytest.mark.parametrize("word", sorted(OURS | SAME))
def test_words_of_other_programs_are_answered_with_ours(word: str) -> None:
    message = refusal(f"{word}=5000")
    assert message.startswith(f"unknown key {word} in {word}=5000: ")
    assert "did you mean" not in message
    remedy = message.partition(": ")[2]
    for typed in re.findall(r"[a-z_.]+=[\w.]+", remedy):
        key, _, value = typed.partition("=")
        if value.isupper():
            assert key in (*KEYS, "task")
        else:
            check(composed([typed]))


def test_epochs_are_told_in_images_of_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "lengths are in images: images=500_000 is about 10 epochs" in refusal("epochs=10")
    (tmp_path / "people" / "train").mkdir(parents=True)
    (tmp_path / "people" / "train" / "manifest.json").write_text('{"samples": 7500}')
    told = "lengths are in images: images=22_500 is 3 epochs of this set of 7,500 images"
    assert answer("epochs", "3", [f"data.train={tmp_path}/people/train"]) == told
    monkeypatch.setenv("ROSTRO_SHARDS", str(tmp_path))
    assert answer("max-epochs", "3", ["data.set=people"]) == told
    assert (
        answer("steps", "100", ["batch=32"])
        == "lengths are in images: images=3_200 is 100 updates of batch=32"
    )
    assert not answer("batchs", "3")


def test_a_task_is_a_module_of_its_folder(conf: Path) -> None:
    config = composed([])
    for name in ("os.path", "..tasks", "", "siamese.x", 5, None, "__init__x"):
        config.task["name"] = name
        with pytest.raises(UserError, match="is no file in hpc/tasks"):
            plan_of(config.task)
