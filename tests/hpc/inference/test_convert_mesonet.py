"""Published weights of MesoNet: they give the numbers of a reference in NumPy, or are refused in a line."""

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch

from data_shards.errors import UserError
from hpc.inference import keras_weights
from hpc.inference.convert_mesonet import Published, read_mesonet
from tests.support import keras_mesonet
from tests.support.image_folders import REAL, needs_real
from tests.support.small_set import photo

NAMES = ("meso4", "mesoinception4")
MESONET = REAL / "deepfake" / "MesoNet"
PUBLISHED = {"Meso4_DF": 0, "Meso4_F2F": 0, "MesoInception_DF": 1, "MesoInception_F2F": 1}


def probability(published: Published, images: np.ndarray) -> np.ndarray:
    """What the converted network says of images uint8 [n, 256, 256, 3], as Rostro shows them to it."""
    shown = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    with torch.no_grad():
        return torch.sigmoid(published.head(published.trunk(shown)))[:, 0].numpy()


@pytest.mark.parametrize("name", NAMES)
def test_a_converted_network_equals_the_reference(name: str, tmp_path: Path) -> None:
    weights = keras_mesonet.random_weights(name)
    keras_mesonet.write(
        tmp_path / "w.h5", name, weights, first=9
    )  # 9 and 10: a number, not text, has the order
    published = read_mesonet(tmp_path / "w.h5")
    images = np.stack([photo(number, 256, 256) for number in range(2)])
    expected = keras_mesonet.probability(name, weights, images / 255)
    assert published.backbone == name
    assert abs(expected[0] - expected[1]) > 1e-3
    np.testing.assert_allclose(probability(published, images), expected, rtol=0, atol=1e-5)


def test_a_whole_saved_model_is_read_as_its_weights_are(tmp_path: Path) -> None:
    keras_mesonet.write(tmp_path / "w.h5", "meso4", keras_mesonet.random_weights("meso4"))
    with h5py.File(tmp_path / "w.h5") as source, h5py.File(tmp_path / "model.h5", "w") as target:
        for layer in source:
            source.copy(layer, target.require_group("model_weights"))
        target["optimizer_weights/training/Adam/iterations:0"] = np.int64(3)
    ours, same = (read_mesonet(tmp_path / name).trunk.state_dict() for name in ("w.h5", "model.h5"))
    assert all(torch.equal(ours[key], same[key]) for key in ours)


@needs_real
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_equal_the_reference_on_their_authors_images(name: str) -> None:
    path = MESONET / "weights" / f"{name}.h5"
    published = read_mesonet(path)
    files = sorted((MESONET / "test_images").rglob("*.jpg"))
    images = np.stack([cv2.resize(cv2.imread(str(file))[:, :, ::-1], (256, 256)) for file in files])
    assert len(images) == 4
    backbone = NAMES[PUBLISHED[name]]
    expected = keras_mesonet.probability(backbone, keras_mesonet.read(path, backbone), images / 255)
    found = probability(published, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    if name.endswith("_DF"):  # the forgeries among these images are deepfakes
        assert [value > 0.5 for value in found] == [file.parent.name == "real" for file in files]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "w.h5"
    keras_mesonet.write(path, "meso4", keras_mesonet.random_weights("meso4"))
    return path


def _change(path: Path, name: str, value: object) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        if value is not None:
            file[name] = value


KERNEL = "conv2d_2/conv2d_2/kernel:0"
DAMAGE = {
    "another size": (KERNEL, np.zeros((3, 3, 8, 8), np.float32), r"conv2d_2 has an array of \[8, 8, 3, 3\]"),
    "other dimensions": (KERNEL, np.zeros(8, np.float32), "conv2d_2 has an array of"),
    "a layer less": ("conv2d_2", None, r"3 conv2d, 4 batch_normalization.*give weights of Meso4"),
    "an array less": ("dense_1/dense_1/bias:0", None, "dense_1 has kernel in the place of bias, kernel"),
    "text": (KERNEL, "rm -rf", "not weights"),
    "not finite": (KERNEL, np.full((5, 5, 8, 8), np.nan, np.float32), "not finite"),
    "a link": (KERNEL, h5py.ExternalLink("/etc/hostname", "/x"), "is a link"),
    "a circle": (KERNEL, h5py.SoftLink("/conv2d_2"), "is a link"),
    "a name": ("dropout_1", np.zeros(1, np.float32), "belongs to no layer"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_with_other_content_is_refused_in_one_line(damage: str, written: Path) -> None:
    name, value, message = DAMAGE[damage]
    _change(written, name, value)
    with pytest.raises(UserError, match=message) as error:
        read_mesonet(written)
    assert str(written) in str(error.value)
    assert "\n" not in str(error.value)


def test_arrays_that_are_large_or_elsewhere_are_refused_unread(written: Path, tmp_path: Path) -> None:
    with h5py.File(written, "r+") as file:
        # Nothing of it was ever written: the file stays small
        file.create_dataset(
            "dense_9/dense_9/kernel:0", (1 << 20, 1 << 10), np.float32, chunks=(1 << 10, 1 << 10)
        )
    with pytest.raises(UserError, match=f"more than {keras_weights.LIMIT:,} bytes"):
        read_mesonet(written)
    (tmp_path / "raw").write_bytes(bytes(64))
    with h5py.File(written, "r+") as file:
        del file["dense_9"]
        file.create_dataset("dense_9/dense_9/kernel:0", (4,), np.float32, external=str(tmp_path / "raw"))
    with pytest.raises(UserError, match="is in another file"):
        read_mesonet(written)


@pytest.mark.parametrize("size", [0, 100, 2000, 100_000])
def test_a_truncated_file_is_refused(size: int, written: Path) -> None:
    written.write_bytes(written.read_bytes()[:size])
    with pytest.raises(UserError, match=r"not a readable HDF5 file.*give the weights of a Keras model"):
        read_mesonet(written)


def test_a_file_that_is_absent_or_empty_of_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist: give the weights of a Keras model"):
        read_mesonet(tmp_path / "none.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(UserError, match="holds no weights"):
        read_mesonet(tmp_path / "empty.h5")
