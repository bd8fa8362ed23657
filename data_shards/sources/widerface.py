"""WIDER FACE (Yang, Luo, Loy and Tang, CVPR 2016): 32,203 pictures of 61 events with all their faces.

    SRC/WIDER_train/images/0--Parade/0_Parade_marchingband_1_849.jpg
    SRC/WIDER_val/images/...
    SRC/wider_face_split/wider_face_train_bbx_gt.txt       see `wider_lists.py`
    SRC/wider_face_split/wider_face_val_bbx_gt.txt
    landmarks=FILE     the five landmarks of some faces, see `wider_landmarks.py`

The official parts are `train` and `val`; the faces of the test part are not published. An event has pictures
in both, so each picture is a group of its own. Boxes are those of the stored picture: where EXIF turns it,
they are turned with it. Faces that the authors call invalid are flagged `ignore`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence

from data_shards.errors import UserError
from data_shards.images.pixels import Rejected
from data_shards.shard_format.keys import visible
from data_shards.shard_format.schema import Field
from data_shards.sources.base import FileSource, Sample, folders_of, stem
from data_shards.sources.boxes import (
    FIVE_POINTS,
    IGNORE,
    Boxes,
    box_fields,
    picture_size,
    upright_box,
    upright_points,
    upright_size,
)
from data_shards.sources.walk import Walk
from data_shards.sources.wider_landmarks import Marks, read_landmarks
from data_shards.sources.wider_lists import Listed, numbers_of, read_list

OPTIONS: dict[str, object] = {"landmarks": ""}
HELP = {"landmarks": "RetinaFace's label.txt with five landmarks of the faces (empty = none)"}
PARTS = ("train", "val")
CLASSES = ("face",)
FLAGS = (
    *(IGNORE, "invalid", "blur", "heavy_blur", "expression", "illumination"),
    *("occluded", "heavy_occluded", "pose"),
)
FOLDER = "wider_face_split"


class WiderFace(FileSource):
    """The pictures of both parts with their boxes, flags and event."""

    name = "widerface"
    licence = "research only; the photographs belong to their owners (Multimedia Laboratory, CUHK)"
    cls = "event"
    cluster = False

    def __init__(self, root: str, lists: Mapping[str, str], landmarks: str = "") -> None:
        """lists: {part: path of its list}. landmarks: path of the file of landmarks ("" = none)."""
        super().__init__(root)
        self.lists, self.landmarks = lists, os.path.basename(landmarks)
        self._marks = read_landmarks(landmarks) if landmarks else Marks({}, [])
        listed = {part: list(read_list(path)) for part, path in lists.items()}
        self.events = _events(path for each in listed.values() for path in (one.path for one in each))
        known = {each.path for parts in listed.values() for each in parts}
        if landmarks and not known & self._marks.faces.keys():
            raise UserError(f"landmarks={landmarks}: has no picture of {root}: give the file of this set")
        if not self.events:
            raise UserError(f"{next(iter(lists.values()))}: names no picture as EVENT/NAME.jpg; restore it")
        fields: dict[str, Field | str] = {**box_fields(CLASSES, FLAGS, FIVE_POINTS if landmarks else ())}
        fields["event"] = Field("class", "i4", names=self.events, unknown=None)
        self.fields: Mapping[str, Field | str] = fields
        self._listed = listed

    def __getstate__(self) -> dict[str, object]:
        """Workers only read files, so the lists of all pictures are not sent to them."""
        return {"root": self.root}

    def samples(self) -> Iterator[Sample]:
        for line, why in self._marks.faults:
            yield Sample(f"{self.landmarks}:{line}", "", "", unfit=why)
        known = {each.path for listed in self._listed.values() for each in listed}
        for path, faces in self._marks.faces.items():
            if path not in known:
                line = next(iter(faces.values())).line
                why = f"{visible(path)}: there is no such picture"[:300]
                yield Sample(f"{self.landmarks}:{line}", "", "", unfit=why)
        for part, listed in self._listed.items():
            files: dict[str, int] = {}
            folder = os.path.join(f"WIDER_{part}", "images")
            for path, num_bytes, unfit in Walk(self.root).below(folder):
                if unfit:
                    yield Sample(path, "", stem(path), num_bytes, unfit=unfit)
                else:
                    files[os.path.relpath(path, folder)] = num_bytes
            named: set[str] = set()
            for each in listed:
                yield from self._samples(part, each, files, named)
            for path, num_bytes in files.items():
                if path not in named:
                    why = f"has no entry in {os.path.basename(self.lists[part])}"
                    yield Sample(os.path.join(folder, path), "", stem(path), num_bytes, unfit=why)

    def _samples(
        self, part: str, listed: Listed, files: Mapping[str, int], named: set[str]
    ) -> Iterator[Sample]:
        """The sample of a listed picture, and those of its rows that are left out with their reasons."""
        where = os.path.join(FOLDER, os.path.basename(self.lists[part]))
        path = os.path.join(f"WIDER_{part}", "images", listed.path)
        event, _, file = listed.path.partition("/")
        fault = listed.fault()
        if listed.path in named or listed.path not in files or event not in self.events:
            fault = "is listed twice" if listed.path in named else "there is no such picture"
            yield Sample(f"{where}:{listed.line}", "", "", unfit=f"{listed.path}: {fault}"[:300])
            return
        named.add(listed.path)
        name, num_bytes = stem(file), files[listed.path]
        try:
            width, height, turn = picture_size(os.path.join(self.root, path))
        except (OSError, Rejected) as error:
            fault = fault or str(error)
        if fault:
            yield Sample(path, "", name, num_bytes, unfit=fault)
            return
        points = len(FIVE_POINTS) if self.landmarks else 0
        boxes = Boxes(upright_size(width, height, turn), len(FLAGS), points)
        marks, found = self._marks.faces.get(listed.path, {}), set[int]()
        for line, row in listed.faces():
            numbers = numbers_of(row)
            face = marks.get(tuple(numbers[:4])) if numbers else None
            stated = upright_points(face.points, (width, height), turn) if face else None
            if why := _add(boxes, numbers, (width, height), turn, stated):
                yield Sample(f"{where}:{line}", "", "", unfit=f"{listed.path}: row {row!r:.60} {why}")
            if face:
                found.add(face.line)
        for face in marks.values():
            if face.line not in found:
                why = f"{listed.path}: is no face of {os.path.basename(self.lists[part])}"
                yield Sample(f"{self.landmarks}:{face.line}", "", "", unfit=why[:300])
        labels = (*boxes.labels(), self.events.index(event))
        yield Sample(path, "", name, num_bytes, labels, split=part, mended=tuple(boxes.mended))


def _add(
    boxes: Boxes,
    numbers: list[float] | None,
    size: tuple[int, int],
    turn: int,
    points: Sequence[Sequence[float]] | None,
) -> str:
    """Add the face of a row of numbers (None = it has others); returns why it cannot be one.

    points: its landmarks in upright pixels (None = not stated).
    """
    if numbers is None:
        return "is not ten numbers"
    blur, expression, light, invalid, occlusion, pose = numbers[4:]
    flags = (
        *(invalid == 1, invalid == 1, blur == 1, blur == 2, expression == 1, light == 1),
        *(occlusion == 1, occlusion == 2, pose == 1),
    )
    box = upright_box(numbers[:4], size, turn)
    return boxes.add(box, 0, [int(flag) for flag in flags], points=points)


def _events(paths: Iterator[str]) -> tuple[str, ...]:
    """The events of these pictures, in the order of their numbers."""
    names = {path.partition("/")[0] for path in paths if "/" in path}

    def place(name: str) -> tuple[int, str]:
        number = name.partition("--")[0]
        return (int(number) if number.isdecimal() and len(number) < 9 else 10**9), name

    return tuple(sorted(filter(str.isprintable, names), key=place))


def source(src: str, *, split: str, landmarks: str = "") -> WiderFace:
    """Open src, the folder that holds WIDER_train and wider_face_split. Raises UserError."""
    del split  # both parts are packed, each into its own set
    names = folders_of(src)
    lists = {}
    for part in PARTS:
        path = os.path.join(src, FOLDER, f"wider_face_{part}_bbx_gt.txt")
        if f"WIDER_{part}" in names and not os.path.isfile(path):
            raise UserError(f"src={src}: has WIDER_{part}, but no {FOLDER}/{os.path.basename(path)}; add it")
        if f"WIDER_{part}" in names:
            lists[part] = path
    if not lists:
        raise UserError(f"src={src}: has no WIDER_train or WIDER_val; give the folder that holds them")
    if landmarks and not os.path.isfile(landmarks):
        raise UserError(f"landmarks={landmarks}: there is no such file; give RetinaFace's label.txt")
    return WiderFace(src, lists, landmarks)
