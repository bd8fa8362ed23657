"""The sources by name: the folder is the registry. Each `sources/<name>.py` has

OPTIONS: dict[str, default]                  keys of its own for `rostro pack`, typed by their defaults
HELP: dict[str, str]                         what they mean, if it states that
def source(src: str, split: str, **options)  -> Source; UserError for a folder that is not this data set
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from data_shards import sources
from data_shards.errors import UserError
from data_shards.sources.base import Source

HELPERS = (
    "base",
    "registry",
    "walk",
    "celeba_lists",
    "class_folders",
    "fer2013_csv",
    "video_frames",
    "affectnet_lists",
    "boxes",
    "coco_json",
    "coco_masks",
    "wider_landmarks",
    "wider_lists",
    "yolo_labels",
)


def source_names() -> list[str]:
    """The names of all sources, sorted."""
    return sorted(
        module.name for module in pkgutil.iter_modules(sources.__path__) if module.name not in HELPERS
    )


def source_module(name: str) -> Any:
    """The module sources/<name>.py. Raises UserError for an unknown name."""
    if name not in source_names():
        raise UserError(f"source={name}: unknown; choose one of {', '.join(source_names())}")
    return importlib.import_module(f"data_shards.sources.{name}")


def open_source(
    name: str, src: str, *, split: str = "train", options: Mapping[str, Any] | None = None
) -> Source:
    """Open the source `name` on src. Raises UserError for an unknown name or option, or a wrong folder."""
    module = source_module(name)
    options = dict(options or {})
    for key, value in options.items():
        if key not in module.OPTIONS:
            known = ", ".join(module.OPTIONS) or "none"
            raise UserError(f"{key}={value}: source={name} has no such key; its own keys: {known}")
    return module.source(src, split=split, **options)
