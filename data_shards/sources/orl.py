"""ORL, the AT&T database of faces: SRC/s1/1.pgm ... s40/10.pgm, grey, 92 x 112 (Samaria and Harter, 1994)."""

import re
from collections.abc import Iterator

from data_shards.errors import UserError
from data_shards.sources.base import FileSource, Sample, folders_of

OPTIONS: dict[str, object] = {}
_SUBJECT = re.compile(r"s\d+")


class Orl(FileSource):
    """The images of the 40 subjects."""

    name = "orl"
    licence = "AT&T Laboratories Cambridge: free for research with acknowledgement"

    def samples(self) -> Iterator[Sample]:
        for sample in super().samples():
            if sample.identity and not _SUBJECT.fullmatch(sample.identity):
                sample = sample._replace(unfit="lies in no subject folder s<number>")
            yield sample


def source(src: str, *, split: str) -> Orl:
    """Open src, the folder of the subjects. Raises UserError where it has none."""
    del split  # ORL has no splits
    if not any(_SUBJECT.fullmatch(name) for name in folders_of(src)):
        raise UserError(f"src={src}: has no folders s1, s2, ...; give the folder that holds them")
    return Orl(src)
