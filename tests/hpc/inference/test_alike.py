"""Pairs that a network finds alike are those of the whole matrix of cosines, and an audit lists them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from hpc.inference import alike, predictor
from launch.cli import main
from tests.support.planted import Shown, pack_planted


def test_they_are_those_of_the_whole_matrix(monkeypatch):
    monkeypatch.setattr(alike, "_ROWS", 7)
    monkeypatch.setattr(alike, "_COLUMNS", 5)
    vectors = np.random.default_rng(3).normal(size=(60, 4)).astype(np.float32) * 9
    vectors[17] = 0
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = units @ units.T
    wanted = [(a, b) for a in range(60) for b in range(a + 1, 60) if cosines[a, b] >= 0.8]
    found = alike.cosine_pairs(vectors, 0.8)
    assert [pair[:2] for pair in found] == wanted
    assert [cosine for *_, cosine in found] == pytest.approx([cosines[pair] for pair in wanted], abs=1e-3)
    assert alike.cosine_pairs(vectors[:1], -1.0) == []


def test_an_audit_lists_them_beside_what_it_knows_already_and_they_are_no_leak(tmp_path, monkeypatch):
    images = [Shown(number, f"Person {chr(65 + number)}") for number in range(6)]
    out = pack_planted(tmp_path / "sets", {"train": images, "eval": [Shown(20), Shown(21)]})
    turned = np.eye(8, dtype=np.float32)
    turned[6] = turned[2]  # two images that are one to the network
    blocks = iter([turned[:2], turned[2:]])  # of eval, then of train
    model = SimpleNamespace(blocks=lambda shards, ids: [next(blocks)], embed=lambda images: images)
    monkeypatch.setattr(predictor, "load_run", lambda run, **words: model)
    words = ["audit-data", str(out), "embedding=some", f"out={tmp_path / 'audit'}", "workers=1"]
    assert main(words) == 0
    content = json.loads((tmp_path / "audit" / "audit.json").read_text())
    (finding,) = content["findings"]["alike"]
    assert [image["row"] for image in finding["images"]] == [0, 4]
    assert finding["note"] == "cosine 1.000"
    assert (tmp_path / "audit" / "alike.png").is_file()
