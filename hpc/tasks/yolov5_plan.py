"""The plan of YOLOv5: its keys, the sets that it takes, refusals, and what it costs. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from data_shards.errors import UserError
from hpc.config.rules import Rule
from hpc.config.schema import Config
from hpc.config.types import shown
from models import yolo_costs

POINTS = "box_points"  # the label of landmarks
engines = ("ddp", "flat", "deepspeed:1")
controls = ("optim", "ema")
STRIDE = {False: 32, True: 64}  # the largest, by p6: sides of images are its multiples

KEYS = {
    "model": Rule("which size of the network", one_of=tuple(yolo_costs.FACTORS)),
    "p6": Rule("a fourth scale of stride 64, for images of about 1280 pixels"),
    "classes": Rule("names of the classes, in the order of the set's label box_class"),
    "anchors": Rule(
        "auto: the published ones, or where too few boxes suit them those of the training set's boxes by "
        "k-means",
        one_of=("auto", "published"),
    ),
    "box": Rule("gain of the boxes' loss, before it is scaled by the scales", least=0),
    "objectness": Rule("gain of the objectness, before it is scaled by scales and image size", least=0),
    "class": Rule("gain of the classes' loss, before it is scaled by scales and classes", least=0),
    "landmarks": Rule(
        f"landmarks of each object, as many as the set's label {POINTS} has: 5 of faces (0 = none)",
        least=0,
        younger=True,
        cap=1 << 10,
    ),
    "landmark": Rule("gain of the landmarks' loss, before it is scaled by the scales", least=0, younger=True),
    "smoothing": Rule("smoothing of the classes' targets", least=0, below=1),
    "ratio": Rule("how many times a side of a box may be that of an anchor, or the other way round", above=1),
    "unit": Rule(
        "consecutive images that find partners among each other, and over which the means of the losses are "
        "taken; ranks and micro batches hold whole ones",
        least=1,
        cap=1 << 10,
    ),
    "patience": Rule(
        "end the run where evaluations have found no better AP for this many images (0 = never)", least=0
    ),
    "scales": Rule(
        "x: the images of an update get sides from (1 - x) to (1 + x) times data.size; 0: always data.size",
        least=0,
        most=0.9,
    ),
    "augment.mosaic": Rule("share of the slots that show four images", least=0, most=1),
    "augment.mosaic_own": Rule("whether the four are the slot's own members: data.members=4, four decodes"),
    "augment.mosaic_scale": Rule("smallest and largest scale of the four images", above=0),
    "augment.mixup": Rule("share of the slots that are blended with a partner", least=0, most=1),
    "augment.degrees": Rule("x: images are turned by an angle from [-x, x]", least=0, most=180),
    "augment.scale": Rule("smallest and largest scale of an image, about its centre", above=0),
    "augment.shear": Rule("x: the tangent of the shear is drawn from [-x, x]", least=0),
    "augment.shift": Rule("x: images are moved by a share of the side from [-x, x]", least=0, below=1),
    "augment.hue": Rule("x: degrees, drawn from [-x, x]", least=0, most=180),
    "augment.saturation": Rule("x: the factor is drawn from [1 - x, 1 + x]", least=0, most=1),
    "augment.value": Rule("x: the factor is drawn from [1 - x, 1 + x]", least=0, most=1),
    "score": Rule("candidates of a lower score are no detections", least=0, below=1),
    "overlap": Rule("of detections that overlap by more than this (IoU) the best stays", least=0, most=1),
    "agnostic": Rule("whether detections of unequal classes suppress each other too"),
    "limit": Rule("detections of an image", least=1, cap=1 << 15),
    "most": Rule("detections of an image that AP counts; COCO's protocol: 100", least=1, cap=1 << 15),
}


def landmarks(keys: Mapping[str, Any]) -> int:
    """Return how many landmarks an object has; runs of older versions do not state it."""
    return int(keys.get("landmarks", 0))


def roles(keys: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the labels of each set; landmarks are those of the training set, others may lack them."""
    boxes = ("boxes:boxes", "box_class:class", "box_flags:bits")
    points = (f"{POINTS}:points",) if landmarks(keys) else ()
    return {"train": (*boxes, *points), "val": boxes, "eval": boxes}


def members(config: Config) -> int:
    """Return the images of a slot."""
    augment = config.task["augment"]
    return 4 if augment["mosaic"] and augment["mosaic_own"] else 1


def unit(config: Config) -> int:
    """Return the slots that stay together, for partners and for the means of the losses."""
    return int(config.task["unit"])


def check(config: Config, sets: Mapping[str, Any]) -> None:
    """Raise UserError for unfit sizes, ops without partners, and sets of other classes."""
    task, augment = config.task, config.task["augment"]
    stride = STRIDE[task["p6"]]
    if config.data.size % stride:
        near = max(stride, round(config.data.size / stride) * stride)
        raise UserError(f"data.size={config.data.size} is not a multiple of {stride}: use data.size={near}")
    for key in ("mosaic_scale", "scale"):
        _check_range(f"task.augment.{key}", augment[key])
    for key, least in (("mosaic", 4), ("mixup", 2)):
        own = key == "mosaic" and augment["mosaic_own"]
        if augment[key] and not own and task["unit"] < least:
            raise UserError(
                f"task.unit={task['unit']}: task.augment.{key}={augment[key]:g} finds partners among {least} "
                f"images or more: use task.unit={least}, or task.augment.{key}=0"
            )
    names = list(task["classes"])
    if not names or len(set(names)) != len(names):
        raise UserError(f"task.classes={shown(names)}: type at least one name, each once, such as [face]")
    for split, shards in sets.items():
        _check_classes(f"data.{split}={shards.folder}", names, shards)
    if count := landmarks(task):
        stated = {split: shards for split, shards in sets.items() if POINTS in shards.schema.fields}
        for split, shards in stated.items():
            _check_landmarks(f"data.{split}={shards.folder}", count, shards)
        if "train" in stated:
            _check_names(config, stated)


def _check_range(key: str, values: list[float]) -> None:
    if len(values) != 2 or values[0] > values[1]:
        raise UserError(f"{key}={shown(values)} is not a smallest and a largest scale: use {key}=[0.5,1.5]")


def _check_classes(place: str, names: list[str], shards: Any) -> None:
    found = list(shards.schema.fields["box_class"].names)
    if found and found != names:
        raise UserError(
            f"{place} has boxes of the classes {shown(found)}, not {shown(names)}: use "
            f"task.classes={shown(found)}, or give a set of these classes"
        )


def _check_landmarks(place: str, count: int, shards: Any) -> None:
    field = shards.schema.fields[POINTS]
    if not field.ragged or len(field.shape) != 2 or field.rows_of != "boxes":
        raise UserError(f"{place}: {POINTS} are not landmarks of the boxes: use task.landmarks=0")
    if field.shape[0] != count:
        raise UserError(
            f"{place} has {field.shape[0]} landmarks of each box, not {count}: use "
            f"task.landmarks={field.shape[0]}"
        )


def _check_names(config: Config, stated: Mapping[str, Any]) -> None:
    """Compare the names of landmarks in the sets that have them, one of which is the training set."""
    names = {split: tuple(shards.schema.fields[POINTS].names) for split, shards in stated.items()}
    place = f"data.train={stated['train'].folder}"
    if landmarks(config.task) > 1 and not names["train"] and config.data.augment.flip:
        raise UserError(
            f"{place}: its landmarks have no names, by which left and right change places in mirror images: "
            "use data.augment.flip=0.0, or a set with names"
        )
    for split, found in names.items():
        if found != names["train"]:
            raise UserError(
                f"data.{split}={stated[split].folder} has the landmarks {shown(list(found))}, the training "
                f"set {shown(list(names['train']))}: give a set of the same ones"
            )


def counts(config: Config) -> tuple[int, float]:
    """Return the parameters, and the fp32 bytes that one image keeps for backward, at its largest scale."""
    task = config.task
    parameters, values = yolo_costs.cost(
        task["model"], classes=len(task["classes"]), p6=task["p6"], points=landmarks(task)
    )
    side = largest(config.data.size, task["scales"], STRIDE[task["p6"]])
    return parameters, 4.0 * (values * side**2 + 9 * side**2)


def largest(size: int, scales: float, stride: int) -> int:
    """Return the largest side of an update's images, in pixels."""
    return max(stride, round(size * (1 + scales) / stride) * stride)
