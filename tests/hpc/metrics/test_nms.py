"""NMS by blocks: equal to the plain greedy loop on 200 random cases with ties, batched, limited, and soft."""

import math

import numpy as np
import pytest
import torch

from data_shards.ragged import Ragged
from hpc.metrics import nms as module
from hpc.metrics.nms import nms, soft_nms, suppressed


def plain_iou(one: list[float], other: list[float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    both = max(wide, 0) * max(high, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both) if sum(areas) > both else 0.0


def plain(boxes, scores, classes, threshold: float, agnostic: bool, limit: int) -> list[int]:
    """The greedy loop as the books have it; Python's sort is stable."""
    left = sorted(range(len(boxes)), key=lambda row: -scores[row])
    kept: list[int] = []
    while left and len(kept) < limit:
        best = left.pop(0)
        kept.append(best)
        left = [
            row
            for row in left
            if not (agnostic or classes[row] == classes[best])
            or plain_iou(boxes[best], boxes[row]) <= threshold
        ]
    return kept


def case(seed: int, most: int = 60) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Whole coordinates on a small field and few different scores: ties of scores, of boxes and of IoU."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, most))
    corner = rng.integers(0, 24, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 16, (count, 2))], 1)
    scores = rng.integers(1, rng.choice([4, 1000]), count) / 1024
    return (
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(rng.integers(0, 3, count)),
    )


def test_it_equals_the_greedy_loop_on_200_cases_with_ties(monkeypatch):
    tied = 0
    for seed in range(200):
        boxes, scores, classes = case(seed)
        threshold = (0.25, 0.45, 0.5, 0.0)[seed % 4]  # whole areas: some pairs have exactly these
        agnostic, limit = bool(seed % 2), (300, 5)[seed % 8 == 7]
        expected = plain(boxes.tolist(), scores.tolist(), classes.tolist(), threshold, agnostic, limit)
        for block in (7, 256):
            monkeypatch.setattr(module, "BLOCK", block)
            found = nms(boxes, scores, classes, threshold=threshold, agnostic=agnostic, limit=limit)
            assert found.tolist() == expected, (seed, block)
        tied += len(scores) - len(scores.unique())
    assert tied > 1000


def test_a_batch_is_its_images_one_by_one():
    cases = [case(seed, most) for seed, most in ((1, 60), (2, 9), (3, 1), (4, 40))]
    assert len(cases[2][0]) == 0
    lists = [torch.cat([b, s[:, None], c[:, None].float()], 1) for b, s, c in cases]
    together = suppressed(Ragged.of_lists([*lists, lists[2]]), threshold=0.4, limit=20)
    assert len(together) == 5
    assert len(together.of(2)) == len(together.of(4)) == 0
    for row, (boxes, scores, classes) in enumerate(cases):
        alone = nms(boxes, scores, classes, threshold=0.4, limit=20)
        assert torch.equal(together.of(row), lists[row][alone])
    mixed = torch.randperm(sum(map(len, lists)), generator=torch.Generator().manual_seed(0))
    owners = torch.cat([torch.full((len(part),), at) for at, part in enumerate(lists)])[mixed]
    rows = torch.cat(lists)[mixed]
    index = nms(rows[:, :4], rows[:, 4], rows[:, 5], threshold=0.4, limit=20, owners=owners)
    assert owners[index].tolist() == together.owners.tolist()


def test_many_candidates_and_classes_far_apart():
    rng = np.random.default_rng(5)
    corner = rng.uniform(0, 400, (800, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 80, (800, 2))], 1).astype(np.float32)
    scores, classes = rng.random(800).astype(np.float32), rng.integers(0, 2, 800) * 5000
    found = nms(*map(torch.from_numpy, (boxes, scores, classes)), threshold=0.45, limit=800)
    # float64 on the same float32 numbers: no pair is so near to the threshold that it matters
    expected = plain(boxes.tolist(), scores.tolist(), classes.tolist(), 0.45, False, 800)
    assert found.tolist() == expected
    assert 300 < len(found) < 780


def test_none_of_none():
    empty = torch.zeros(0, 4), torch.zeros(0)
    assert nms(*empty, threshold=0.5).tolist() == []
    assert nms(*empty, threshold=0.5, owners=torch.zeros(0, dtype=torch.int64)).tolist() == []
    assert soft_nms(*empty)[0].tolist() == []
    nothing = Ragged(torch.zeros(0, 6), np.zeros(4, np.int64))
    for sigma in (None, 0.5):
        found = suppressed(nothing, threshold=0.5, sigma=sigma)
        assert len(found) == 3
        assert found.rows.shape == (0, 6)


def test_words_that_cannot_be_are_refused():
    boxes, scores, _ = case(0)
    with pytest.raises(ValueError, match=r"threshold=1\.5"):
        nms(boxes, scores, threshold=1.5)
    with pytest.raises(ValueError, match="limit=0"):
        nms(boxes, scores, threshold=0.5, limit=0)
    with pytest.raises(ValueError, match="sigma=0"):
        soft_nms(boxes, scores, sigma=0)


def plain_soft(boxes, scores, classes, sigma: float, floor: float) -> list[tuple[int, float]]:
    left, kept = dict(enumerate(scores)), []
    while left:
        best = max(left, key=lambda row: left[row])  # of equal ones the first
        score = left.pop(best)
        if score <= floor:
            break
        kept.append((best, score))
        for row in left:
            if classes[row] == classes[best]:
                left[row] *= math.exp(-(plain_iou(boxes[best], boxes[row]) ** 2) / sigma)
    return kept


def test_the_soft_one_lowers_scores_as_the_paper_states_it():
    lists, expected = [], []
    for seed in range(20):
        boxes, scores, classes = case(seed, 25)
        scores = torch.rand(len(scores), generator=torch.Generator().manual_seed(seed))
        lists.append(torch.cat([boxes, scores[:, None], classes[:, None].float()], 1))
        expected.append(plain_soft(boxes.tolist(), scores.tolist(), classes.tolist(), 0.5, 0.05))
    together = suppressed(Ragged.of_lists(lists), threshold=0.5, sigma=0.5, floor=0.05)
    for row, kept in enumerate(expected):
        found = together.of(row)
        assert torch.equal(found[:, :4], lists[row][[at for at, _ in kept], :4])
        np.testing.assert_allclose(found[:, 4], [score for _, score in kept], rtol=1e-5)
        assert (found[:, 4].diff() <= 0).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_a_gpu_finds_the_same():
    rows = [torch.cat([b, s[:, None], c[:, None].float()], 1) for b, s, c in map(case, range(8))]
    here = suppressed(Ragged.of_lists(rows), threshold=0.45)
    there = suppressed(Ragged.of_lists(rows).to("cuda"), threshold=0.45)
    assert torch.equal(here.rows, there.rows.cpu())
    assert np.array_equal(here.starts, there.starts)
