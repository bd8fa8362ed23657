"""The view of a run: what its config says that the decoder does to an image. Imports no torch."""

from data_shards.sampling.view import View
from hpc.config.schema import Augment, Config


def view_of(augment: Augment, target: tuple[int, int], *, fit: str = "cover", halves: bool = False) -> View:
    """Return the view with these settings of a target (height, width)."""
    (area_low, area_high), (ratio_low, ratio_high) = augment.crop_area, augment.crop_ratio
    return View(
        target,
        fit=fit,
        crop_area=(area_low, area_high),
        crop_ratio=(ratio_low, ratio_high),
        flip=augment.flip,
        brightness=augment.brightness,
        contrast=augment.contrast,
        saturation=augment.saturation,
        hue=augment.hue,
        halves=halves,
    )


def training(config: Config, size: int) -> View:
    """Return the view of the training set at `size` pixels, the side of the square."""
    data = config.data
    return view_of(data.augment, (size, size), fit=data.fit, halves=data.halves)


def evaluation(config: Config, size: int) -> View:
    """Return the view of held-out sets: the fit and the halves of the training, nothing random."""
    return View((size, size), fit=config.data.fit, halves=config.data.halves)
