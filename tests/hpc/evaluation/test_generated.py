"""Generated images against a set: the same digits at any world size, features that are kept, the report."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from data_shards.errors import UserError
from data_shards.loading.loader import EvalLoader
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet
from hpc.distributed.comm import Comm
from hpc.evaluation import feature_cache, generated
from hpc.evaluation.base import JudgedSet
from hpc.evaluation.generated import Generated
from hpc.evaluation.run import walk
from hpc.metrics import generated as metrics
from tests.support.generating import Dreams, dreams, scalars, scalars_twice, small_features
from tests.support.ranks import launch
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return pack_set(tmp_path_factory.mktemp("real"), identities=6, each=5, holdout=0.5) / "train"


@pytest.fixture(scope="module")
def alone(shards, tmp_path_factory) -> dict[str, float]:
    found = scalars(Comm(), str(shards), str(tmp_path_factory.mktemp("cache")), {})
    assert list(found) == ["frechet", "kid", "precision", "recall", "class_score"]
    return found


@pytest.mark.parametrize("world", [2, 5])
def test_figures_are_the_same_at_any_world_size_and_from_kept_features(alone, shards, tmp_path, world):
    assert launch(scalars_twice, world, str(shards), str(tmp_path)) == [(alone, alone)] * world
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_figures_are_those_of_the_features_of_the_images(alone, shards):
    torch.manual_seed(0)
    task, nets = Dreams(None), {"G": nn.Linear(6, 768)}
    network = small_features()
    with torch.no_grad():
        from data_shards.batch import Batch

        fake = task.predict(nets, Batch.of_positions(torch.arange(22)))["image"]
    fake = ((fake + 1) * 127.5).round() / 127.5 - 1  # as a file of 8 bits would hold them
    real = torch.cat(
        [
            b.images["image"]
            for b in EvalLoader(ShardSet.open(shards), rank=0, world=1, batch=99, view=View((16, 16)))
        ]
    )
    one, probable = network(fake)
    other, _ = network(real.float() / 127.5 - 1)
    assert alone["frechet"] == pytest.approx(
        metrics.frechet(metrics.moments(one), metrics.moments(other)), rel=1e-4
    )
    assert alone["kid"] == pytest.approx(metrics.kid(one, other)[0], rel=1e-3)
    assert (alone["precision"], alone["recall"]) == pytest.approx(metrics.precision_recall(other, one))
    assert alone["class_score"] == pytest.approx(metrics.inception_score(probable)[0], rel=1e-5)


def test_kept_features_are_used_for_their_set_rule_and_extractor_alone(shards, tmp_path, monkeypatch, alone):
    walked = []
    real = Generated._real
    monkeypatch.setattr(
        Generated, "_real", lambda self, *args: walked.append(args[0].name) or real(self, *args)
    )

    def judge(**options) -> int:
        before = len(walked)
        dreams(Comm(), str(shards), str(tmp_path), options)
        return len(walked) - before

    assert judge() == 1
    assert judge() == 0
    assert judge(samples=9) == 0  # what is generated does not matter
    assert judge(side=8) == 1
    assert judge(features="another") == 1
    assert judge(references=10) == 1
    assert judge(opener=lambda word, sha256: small_features(word, side=10)) == 1
    assert judge() == 0
    entry = next(iter(sorted(tmp_path.rglob("*.json"))))
    entry.write_text(entry.read_text().replace('"manifest": "', '"manifest": "0'))
    for data in tmp_path.rglob("*.safetensors"):
        data.write_bytes(data.read_bytes()[:-1] + b"x")  # damaged
    assert judge() == 1
    assert scalars(Comm(), str(shards), str(tmp_path), {}) == alone


def test_an_entry_that_states_another_source_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = feature_cache.Source("a", "b", "c")
    ids, features = np.arange(3), np.ones((3, 2), np.float32)
    assert feature_cache.load(source) is None
    assert feature_cache.store(source, ids, features) == ""
    found = feature_cache.load(source)
    assert found is not None
    np.testing.assert_array_equal(found["features"], features)
    other = feature_cache.Source("a", "b", "d")
    for ending in (".json", ".safetensors"):
        path = feature_cache.folder() / f"{source.name}{ending}"
        path.rename(path.with_name(f"{other.name}{ending}"))
    assert feature_cache.load(other) is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "were not kept" in feature_cache.store(source, ids, features)


def test_the_report_names_the_extractor_and_only_inceptions_figure_is_called_fid(shards, tmp_path):
    report = dreams(Comm(), str(shards), str(tmp_path), {"typed": {"yardsticks": True, "samples": 30}})
    table = report.tables["distances"]
    assert table.columns[:2] == ("against the real images", "frechet")
    assert [row[0] for row in table.rows] == [
        "generated",
        "real, one half by the other",
        "real, blurred to 32 pixels",
        "real, blurred to 16 pixels",
        "real, blurred to 8 pixels",
    ]
    assert table.rows[0][-1] == 30
    assert table.rows[2][1] == pytest.approx(0, abs=1e-9)  # they are brought to 16 pixels anyway
    assert table.rows[4][1] > 1e-4
    assert "not FID" in table.note
    assert report.facts["extractor"] == "small"
    fid = dreams(Comm(), str(shards), str(tmp_path), {"features": "inception"})
    assert list(fid.scalars) == ["fid", "kid", "precision", "recall", "inception_score"]
    assert fid.tables["distances"].note.startswith("FID by inception, sha256 ")


def test_without_a_set_there_is_the_score_of_classes_alone(tmp_path):
    assert list(scalars(Comm(), "", str(tmp_path), {})) == ["class_score"]


def test_nearest_images_stand_beside_samples(shards, tmp_path, monkeypatch):
    """A generator that copies: image i of the set is its own nearest, at distance 0."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    real = ShardSet.open(shards)
    images = next(iter(EvalLoader(real, rank=0, world=1, batch=99, view=View((16, 16))))).images["image"]

    class Copies(Dreams):
        def predict(self, nets, batch):
            return {"image": images[batch.positions].float() / 127.5 - 1}

    evaluator = Generated(features="small", samples=len(real), side=16, opener=small_features)
    walk(Copies(None), {}, {"g": evaluator}, JudgedSet(lambda comm: (), real), Comm(), channels_last=False)
    from hpc.evaluation.run import figures

    report = figures(evaluator, Comm())
    assert report.scalars["frechet"] == pytest.approx(0, abs=1e-6)
    assert (report.scalars["precision"], report.scalars["recall"]) == (1.0, 1.0)
    rows = report.tables["nearest"].rows
    assert [row[1] for row in rows] == [real.key(number) for number in range(12)]
    assert max(row[-1] for row in rows) < 1e-5
    report.figures["nearest.png"](tmp_path / "nearest.png")
    import cv2

    sheet = cv2.imread(str(tmp_path / "nearest.png"))
    assert sheet.shape[1] > 8 * 96
    # sample and nearest image are equal, cell by cell
    np.testing.assert_array_equal(sheet[32:128, 8:104], sheet[32:128, 104:200])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"poisoned": True}, "image: 1 of 22 predictions are not finite"),
        ({"samples": 3}, "3 generated and 15 real images are too few"),
        ({"features": "", "opener": generated.open_features}, "features is missing: type features=lite0"),
        ({"features": "run:x", "opener": generated.open_features}, "only `rostro evaluate` opens a run"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_a_line(shards, tmp_path, options, message):
    with pytest.raises(UserError) as caught:
        dreams(Comm(), str(shards), str(tmp_path), dict(options))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_kept_entries_are_plain_and_sealed(shards, tmp_path):
    scalars(Comm(), str(shards), str(tmp_path), {"references": 10})
    stated = json.loads(next(tmp_path.rglob("*.json")).read_text())
    assert stated["manifest"] == ShardSet.open(shards).digest
    assert stated["rule"].startswith("10 images drawn by hash, centre square by area or cubic to 16")
