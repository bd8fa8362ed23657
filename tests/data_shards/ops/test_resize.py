"""Images of another size: painted boxes are found where the labels say, masks stay whole numbers."""

import numpy as np
import torch

from data_shards.ops.base import run_ops
from data_shards.ops.resize import Resize
from data_shards.ragged import Ragged
from tests.support.painted import found_box
from tests.support.samples import batch_of


def test_boxes_points_and_masks_follow_the_pixels():
    image = torch.full((1, 3, 40, 60), -1.0)
    image[:, 0, 10:30, 15:45] = 1.0
    mask = torch.full((1, 1, 40, 60), 255, dtype=torch.uint8)
    mask[:, :, 10:30, 15:45] = 1
    batch = batch_of(
        {"image": image, "mask": mask},
        {
            "boxes": Ragged(torch.tensor([[15.0, 10, 45, 30], [0, 0, 0, 0]]), np.array([0, 2])),
            "points": torch.tensor([[[15.0, 10.0], [-1.0, -1.0]]]),
        },
        {"image": "image", "mask": "mask", "boxes": "boxes", "points": "points"},
    )
    out = run_ops([Resize((80, 96))], batch)
    assert out.size == (80, 96)
    assert out.labels["boxes"].rows.tolist() == [[24.0, 20.0, 72.0, 60.0], [0, 0, 0, 0]]
    assert out.labels["points"].tolist() == [[[24.0, 20.0], [-1.0, -1.0]]]
    light = (out.images["image"][0, 0].numpy() + 1) / 2
    assert np.allclose(found_box(light), [24, 20, 72, 60], atol=0.3)
    assert set(out.images["mask"].unique().tolist()) == {1, 255}
    assert found_box((out.images["mask"][0, 0].numpy() == 1) * 1.0).tolist() == [24, 20, 72, 60]
    assert run_ops([Resize((40, 60))], batch) is batch
