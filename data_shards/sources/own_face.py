"""One face against all others: is it me? Labels `own`, 0 others and 1 me.

    SRC/me/**, SRC/others/**       or me=FOLDER others=FOLDER without SRC
    SRC/<person>/**, me=NAME       a folder of persons: that one against the rest

The folders in `others`, or the persons, are identities, which are never divided. Pictures of `me` have none:
they are divided one by one, by the hash of their paths, or all of them would be on one side.
"""

import os
from collections.abc import Iterator, Mapping

from data_shards.errors import UserError
from data_shards.shard_format.keys import visible
from data_shards.shard_format.schema import Field
from data_shards.sources.base import FileSource, Sample, folders_of, read_file, stem
from data_shards.sources.walk import Walk, is_folder, is_helper

NEEDS_SRC = False
OPTIONS: dict[str, object] = {"me": "", "others": ""}
HELP = {
    "me": "the folder of your own face, or the person in SRC who is you (empty = SRC/me)",
    "others": "the folder of other faces (empty = SRC/others, or all other persons in SRC)",
}
CLASSES = ("others", "me")  # 0 and 1


class OwnFace(FileSource):
    """The pictures of me and of others, each person of these with an identity."""

    name = "own_face"
    licence = "not stated by the source: check the terms of the pictures before you share them"
    fields: Mapping[str, Field | str] = {"own": Field("class", "i4", names=CLASSES, unknown=None)}
    cls = "own"

    def __init__(self, me: str, others: str, *, leave_out: str = "") -> None:
        """me, others: folders. leave_out: the folder in `others` that is me."""
        super().__init__(others)
        self.places = {"me": me, "others": others}
        self.leave_out = leave_out
        self.cluster = any(name != leave_out for name in _folders(others))

    def samples(self) -> Iterator[Sample]:
        for number, word in enumerate(CLASSES):
            for path, num_bytes, unfit in Walk(self.places[word]).below(""):
                person, slash, _ = path.partition("/")
                if number == 0 and person == self.leave_out and slash:
                    continue
                known = number == 0 and slash
                name = stem(path[len(person) + 1 :] if known else os.path.basename(path))
                identity = person if known else ""
                yield Sample(f"{word}/{path}", identity, name, num_bytes, (number,), unfit=unfit)

    def read(self, sample: Sample) -> bytes:
        word, _, path = sample.path.partition("/")
        return read_file(os.path.join(self.places[word], path))


def _folders(folder: str) -> list[str]:
    return [entry.name for entry in os.scandir(folder) if is_folder(entry) and not is_helper(entry.name)]


def source(src: str, *, split: str, me: str = "", others: str = "") -> OwnFace:
    """Open the two folders, or src and the person in it who is `me`. Raises UserError."""
    del split
    if src and me and not others and os.path.isdir(os.path.join(src, me)) and "/" not in me:
        if len(folders_of(src)) < 2:
            raise UserError(f"me={me}: {src} holds nobody else; type others=FOLDER")
        return OwnFace(os.path.join(src, me), src, leave_out=me)
    places = {"me": me, "others": others}
    for word, folder in places.items():
        places[word] = folder or os.path.join(src, word)
        if not os.path.isdir(places[word]):
            people = [name for name in folders_of(src) if name not in CLASSES] if src and word == "me" else []
            remedy = (
                f" or the name of a person in it, such as {visible(people[0])}" if len(people) > 1 else ""
            )
            raise UserError(f"{word}={folder}: {places[word]} is not a folder; type {word}=FOLDER{remedy}")
    if os.path.realpath(places["me"]) == os.path.realpath(places["others"]):
        raise UserError(f"me={me}: is the folder of the others too; give two folders")
    return OwnFace(places["me"], places["others"])
