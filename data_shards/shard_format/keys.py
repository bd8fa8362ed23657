"""Names of samples in the shards: `<identity>/<stem>`, readable, ASCII, without a dot, at most 90 bytes.

Pair lists find images by these keys, so a plain name must not change.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

LONGEST = 90  # leaves room for `.` and an extension in the 100 bytes of a tar header
UNKNOWN = "\0"  # before the path of an image of an unknown person: while packing, a person of that name
_LONGEST_IDENTITY = 45
_STRANGE = re.compile(r"[^A-Za-z0-9_/-]")
_SKIPPED = re.compile(r"__.*__")  # webdataset takes members in such a folder for its own and skips them


def slug(name: str, *, longest: int = LONGEST) -> str:
    """Return the name without accents, and with `_` for every other character that is not plain.

    A name that loses letters or is too long ends in a hash of the original: two such names stay distinct.
    """
    plain = unicodedata.normalize("NFKD", name)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    replaced = _STRANGE.sub("_", plain)
    if not plain.isascii() or len(replaced) > longest or not replaced:
        return _marked(replaced, name, longest)
    return replaced


def _marked(plain: str, name: str, longest: int) -> str:
    """The plain text, cut to length, with a hash of the name."""
    mark = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{plain[: longest - 9]}_{mark}"


def _unique(names: Sequence[str], slugs: Sequence[str], *, wholes: Sequence[str], longest: int) -> list[str]:
    """A slug for each name, all distinct. A name that is its own slug keeps it, as pair lists expect.

    wholes: what distinguishes the names, such as their paths. Where two names have the same slug, the later
    one is marked with the hash of its whole.
    """
    unique = dict.fromkeys(range(len(names)), "")
    taken: set[str] = set()
    for plain in (True, False):
        for place, (name, first, whole) in enumerate(zip(names, slugs, wholes, strict=True)):
            if unique[place] or (plain and (name != first or first in taken)):
                continue
            candidate = first
            while candidate in taken:
                candidate = _marked(first, whole, longest)
                whole += "\0"  # the marked slug may be the name of another sample
            taken.add(candidate)
            unique[place] = candidate
    return list(unique.values())


def visible(name: str) -> str:
    """Return the name on one printable line.

    Control characters, undecodable bytes and backslashes are escaped, so different names stay different, and
    plain ones do not change.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(
        letter if letter.isprintable() and letter != "\\" else letter.encode("unicode_escape").decode("ascii")
        for letter in name
    )


def identity_slugs(identities: Sequence[str]) -> dict[str, str]:
    """{identity: first part of its keys}, all distinct."""
    slugs = [_identity_slug(name.removeprefix(UNKNOWN)) for name in identities]
    unique = _unique(identities, slugs, wholes=identities, longest=_LONGEST_IDENTITY)
    return dict(zip(identities, unique, strict=True))


def stem_slugs(
    first: str, stems: Sequence[str], *, paths: Sequence[str], longest: int = LONGEST
) -> list[str]:
    """The second parts of the keys that begin with `first`, all distinct; paths: of the same samples.

    longest: bytes of a whole key.
    """
    longest -= 1 + len(first)
    slugs = [slug(stem, longest=longest) for stem in stems]
    return _unique(stems, slugs, wholes=paths, longest=longest)


def key_room(extensions: Sequence[str]) -> int:
    """The most bytes of a key whose members have these extensions, at most LONGEST."""
    return min(LONGEST, 99 - max(map(len, extensions), default=0))


def with_whole_stem(first: str, stem: str, *, whole: str, longest: int) -> str:
    """The first part of the key of an image of an unknown person, cut where its plain `stem` would be.

    By their stems other programs find such images; `first` was made of the path `whole`.
    """
    room = longest - 1 - len(stem)
    if len(first) <= room or room < 9 or slug(stem) != stem:
        return first
    return _marked(first, whole, room)


def member_key(identity: str, stem: str) -> str:
    """The key of a sample whose names collide with no others, as in a pair list."""
    first = _identity_slug(identity)
    return f"{first}/{slug(stem, longest=LONGEST - 1 - len(first))}"


def _identity_slug(identity: str) -> str:
    flat = identity.replace("/", "_")
    plain = slug(flat, longest=_LONGEST_IDENTITY)
    return _marked(plain.strip("_"), flat, _LONGEST_IDENTITY) if _SKIPPED.fullmatch(plain) else plain
