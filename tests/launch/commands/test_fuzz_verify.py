"""Random images, devices, names and threshold files given to `verify`: one line or a score, never more."""

import io
import json
import math
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data_shards.errors import UserError
from launch import cli
from launch.commands import verify
from tests.support.fuzz import HARMLESS, JSON_VALUES, REFUSED, campaign, check_refusal, damage, damage_json
from tests.support.judged import judged_run
from tests.support.sets import pack_set
from tests.support.small_set import photo

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "GIF", "TIFF", "WEBP")
LETTERS = "ab=.²é\u202e\n\t\r\x1b\\'\"$`;*~-\udcff "


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    shards = pack_set(tmp_path_factory.mktemp("set"), identities=8, each=3, holdout=0.5)
    run = judged_run(tmp_path_factory.mktemp("runs") / "faces", shards)
    assert cli.main(["evaluate", str(run), "bootstrap=0"]) == 0
    return run


@pytest.fixture(scope="module")
def samples() -> list[bytes]:
    """The same image in every format, grey ones and an image of many pixels in few bytes too."""
    found = []
    for kind in FORMATS:
        for image in (photo(1, 40, 50), photo(1, 40, 50)[..., 0]):
            stream = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(image)).save(stream, kind)
            found.append(stream.getvalue())
    return [*found, cv2.imencode(".png", np.zeros((4000, 4000), np.uint8))[1].tobytes()]


class Field:
    """A folder with a good image, in which each input makes what it needs."""

    def __init__(self, run: Path, folder: Path, samples: list[bytes]) -> None:
        self.run, self.folder, self.samples = run, folder, samples
        self.good = folder / "good.jpg"
        self.good.write_bytes(samples[0])
        self.threshold = run / "threshold.json"
        self.stored = self.threshold.read_bytes()
        (folder / "folder").mkdir()
        os.mkfifo(folder / "fifo")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "socket"))
        (folder / "loop").symlink_to("loop")
        self.odd = [*(folder / name for name in ("folder", "fifo", "socket", "loop", "gone", "good.jpg/x"))]
        self.odd += map(Path, ("/dev/zero", "/dev/null", "/dev/full", "/proc/self/mem", "/proc/kmsg", ""))

    def image(self, rng: random.Random) -> Path:
        data = rng.choice(self.samples)
        for _ in range(rng.randrange(1, 4)):
            data = damage(data, rng)
        path = self.folder / "damaged.jpg"
        path.write_bytes(data)
        return path

    def name(self, rng: random.Random) -> Path:
        name = "".join(rng.choices(LETTERS, k=rng.choice((1, 5, 20, 300, 5000))))
        path = self.folder / name
        if len(os.fsencode(name)) < 200 and name.strip(".") and rng.random() < 0.5:
            path.write_bytes(rng.choice(self.samples[:3]))
        return path

    def damaged_threshold(self, rng: random.Random) -> Path:
        if rng.random() < 0.5:
            self.threshold.write_bytes(damage(self.stored, rng))
        else:
            value = (
                damage_json(json.loads(self.stored), rng) if rng.random() < 0.9 else rng.choice(JSON_VALUES)
            )
            self.threshold.write_text(json.dumps(value))
        return self.good

    def one(self, rng: random.Random, capsys: pytest.CaptureFixture[str]) -> str:
        make: Callable[[random.Random], Path] = rng.choice(
            (self.image, self.image, self.name, self.damaged_threshold, lambda rng: rng.choice(self.odd))
        )
        self.threshold.write_bytes(self.stored)
        pair = [str(self.good), str(make(rng))]
        rng.shuffle(pair)
        as_json = rng.random() < 0.5
        capsys.readouterr()
        try:
            code = verify.main(
                [
                    str(self.run),
                    *(f"{key}={path}" for key, path in zip("ab", pair, strict=True)),
                    f"json={as_json}",
                ]
            )
        except UserError as error:
            check_refusal(error)
            return REFUSED
        (line,) = capsys.readouterr().out.splitlines()
        assert code == 0
        score = (
            json.loads(line)["score"] if as_json else float(line.split("cosine ")[1].split()[0].rstrip(","))
        )
        assert math.isfinite(score)
        return HARMLESS


def test_whatever_is_given_to_verify(run, samples, tmp_path, capsys):
    field = Field(run, tmp_path, samples)
    counts = campaign("verify", lambda rng: field.one(rng, capsys), least=60)
    assert counts[REFUSED]
    assert counts[HARMLESS]
