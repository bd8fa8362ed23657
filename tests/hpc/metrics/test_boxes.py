"""Forms, areas and overlaps of boxes, by what is counted by hand."""

import pytest
import torch

from hpc.metrics import boxes as metrics


def random_boxes(count: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 20, (count, 2), generator=draw)
    return torch.cat([corner, corner + torch.randint(0, 12, (count, 2), generator=draw)], 1).double()


def pixels(box: torch.Tensor, *, last: int = 0) -> set[tuple[int, int]]:
    """The pixels of a box of whole coordinates; last=1: those of its last row and column too."""
    x0, y0, x1, y1 = box.int().tolist()
    return {(x, y) for x in range(x0, x1 + last) for y in range(y0, y1 + last)}


def test_forms_come_back():
    boxes = random_boxes(40, 0)
    assert torch.equal(metrics.from_corner_and_size(metrics.to_corner_and_size(boxes)), boxes)
    assert torch.equal(metrics.from_centre_and_size(metrics.to_centre_and_size(boxes)), boxes)
    assert metrics.to_corner_and_size(torch.tensor([2.0, 3, 7, 9])).tolist() == [2, 3, 5, 6]
    assert metrics.to_centre_and_size(torch.tensor([2.0, 3, 7, 9])).tolist() == [4.5, 6, 5, 6]


@pytest.mark.parametrize("extra", [0, 1])
def test_overlaps_are_counted_pixels(extra):
    one, other = random_boxes(20, 1), random_boxes(30, 2)
    found = metrics.iou(one, other, extra=extra)
    assert found.shape == (20, 30)
    for row, box in enumerate(one):
        assert metrics.area(box, extra=extra) == len(pixels(box, last=extra))
        for column, second in enumerate(other):
            both = pixels(box, last=extra) & pixels(second, last=extra)
            either = pixels(box, last=extra) | pixels(second, last=extra)
            assert found[row, column] == pytest.approx(len(both) / len(either) if either else 0)
            if not extra and pixels(box):
                share = metrics.covered(box[None], second[None])
                assert share == pytest.approx(len(both) / len(pixels(box)))


def test_batches_and_pairs_are_the_same_figures():
    one, other = random_boxes(24, 3).reshape(4, 6, 4), random_boxes(20, 4).reshape(4, 5, 4)
    together = metrics.iou(one, other)
    assert together.shape == (4, 6, 5)
    for image in range(4):
        assert torch.equal(together[image], metrics.iou(one[image], other[image]))
    assert torch.equal(metrics.paired_iou(one[0, :5], other[0]), together[0].diagonal())


def test_no_area_is_no_overlap():
    nothing = torch.tensor([[3.0, 3, 3, 3], [5, 5, 2, 9]])
    assert metrics.area(nothing).tolist() == [0, 0]
    assert metrics.iou(nothing, nothing).tolist() == [[0, 0], [0, 0]]
    assert metrics.covered(nothing, random_boxes(2, 5)).tolist() == [[0, 0], [0, 0]]


def test_boxes_are_clipped_to_their_images():
    boxes = torch.tensor([[-3.0, 2, 50, 60], [10, -5, 20, 8]])
    assert metrics.clipped(boxes, 40, 30).tolist() == [[0, 2, 40, 30], [10, 0, 20, 8]]
    each = metrics.clipped(boxes, torch.tensor([40, 15]), torch.tensor([30, 5]))
    assert each.tolist() == [[0, 2, 40, 30], [10, 0, 15, 5]]
