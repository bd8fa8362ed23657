"""The exported graph of a detector answers the candidates of torch, in pixels."""

import numpy as np
import pytest
import torch

from data_shards.batch import Batch
from hpc.config.check import check
from hpc.inference.export import Exported, _write_onnx
from hpc.inference.predictor import Predictor
from hpc.task import build_task
from launch.options.compose import composed


def test_boxes_and_scores_of_the_graph_are_those_of_torch(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    config = composed(["task=yolov5m_persons", "smoke=true"])
    check(config)
    task = build_task(config)
    torch.manual_seed(0)
    nets = {name: net.eval() for name, net in task.players().items()}
    model = Predictor(task, nets, config, tmp_path, 0, "raw", {})
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    module = Exported(model, images[:2]).eval()
    assert module.names == ("boxes", "scores")
    _write_onnx(module, {"images": images[:2]}, module.names, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    boxes, scores = session.run(["boxes", "scores"], {"images": images.numpy()})
    with torch.no_grad():
        wanted = task.graph(nets, Batch.of_images(images))
    assert boxes.shape == (3, 252, 4)
    assert np.abs(boxes - wanted["boxes"].numpy()).max() < 1e-3
    assert np.abs(scores - wanted["scores"].numpy()).max() < 1e-5
