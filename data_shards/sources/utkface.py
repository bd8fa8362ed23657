"""UTKFace (Zhang, Song and Qi, CVPR 2017): SRC/**/<age>_<gender>_<race>_<date>.jpg, or ....jpg.chip.jpg.

The labels are read from the name of each file: age in years, 0 to 116 in the published set; gender 0 man,
1 woman; race 0 White, 1 Black, 2 Asian, 3 Indian, 4 other; the date is yyyymmddHHMMSSmmm, 17 digits.
The people are not known, and there is no official split. Files whose names break these rules, as some of the
published set do, are listed.
"""

import os
import re
from collections.abc import Iterator, Mapping

from data_shards.errors import UserError
from data_shards.shard_format.schema import Field
from data_shards.sources.base import FileSource, Sample, walk

OPTIONS: dict[str, object] = {}
GENDERS = ("man", "woman")
RACES = ("White", "Black", "Asian", "Indian", "other")
OLDEST = 116  # years, as its authors state
_ENDING = re.compile(r"(\.chip)?\.[A-Za-z]+$")
_DATE = re.compile(r"[0-9]{17}")
_NUMBER = re.compile(r"[0-9]{1,3}")


class UtkFace(FileSource):
    """The images of UTKFace, aligned chips or faces in the wild, with age, gender and race."""

    name = "utkface"
    licence = "non-commercial research only; the photographs belong to their owners"
    fields: Mapping[str, Field | str] = {
        "age": "i4",
        "gender": Field("class", "i4", names=GENDERS),
        "race": Field("class", "i4", names=RACES),
    }
    cls = "race"
    cluster = False

    def samples(self) -> Iterator[Sample]:
        found = False
        for path, num_bytes, unfit in walk(self.root):
            name = without_endings(os.path.basename(path))
            labels, fault = read_name(name)
            found = found or not fault
            yield Sample(path, "", name, num_bytes, labels, unfit=unfit or fault)
        if not found:
            raise UserError(
                f"src={self.root}: no file is named <age>_<gender>_<race>_<date>.jpg; "
                "give the folder of UTKFace"
            )


def without_endings(name: str) -> str:
    """The name without `.jpg`, `.jpg.chip.jpg` and the like."""
    while name != (name := _ENDING.sub("", name)):
        pass
    return name


def read_name(name: str) -> tuple[tuple[int, ...], str]:
    """((age, gender, race), "") of a name without its endings, or ((), what is wrong with it)."""
    words = name.split("_")
    if len(words) != 4:
        return (), f"its name has {len(words)} of the 4 parts age_gender_race_date"
    for what, word in zip(("age", "gender", "race"), words, strict=False):
        if not _NUMBER.fullmatch(word):
            return (), f"the {what} in its name is not a number"
    if not _DATE.fullmatch(words[3]):
        return (), "the date in its name is not 17 digits, yyyymmddHHMMSSmmm"
    age, gender, race = map(int, words[:3])
    for what, value, most in (
        ("age", age, OLDEST),
        ("gender", gender, len(GENDERS) - 1),
        ("race", race, len(RACES) - 1),
    ):
        if value > most:
            return (), f"the {what} {value} in its name is not 0 to {most}"
    return (age, gender, race), ""


def source(src: str, *, split: str) -> UtkFace:
    """Open src, a folder with the images at any depth. Raises UserError where it is none."""
    del split  # UTKFace has none
    if not os.path.isdir(src):
        raise UserError(f"src={src}: is not a folder; give the folder that holds the images")
    return UtkFace(src)
