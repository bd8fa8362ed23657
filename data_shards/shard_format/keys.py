"""Names of samples in the shards: `<identity>/<stem>`, readable, ASCII, without a dot, at most 90 bytes.

Pair lists find pictures by these keys, so a plain name must come out as it went in.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

LONGEST = 90  # leaves room for `.` and an extension in the 100 bytes of a tar header
_LONGEST_IDENTITY = 45
_STRANGE = re.compile(r"[^A-Za-z0-9_/-]")
_SKIPPED = re.compile(r"__.*__")  # webdataset takes members in such a folder for its own and leaves them out


def slug(name: str, *, longest: int = LONGEST) -> str:
    """The name with accents removed and every other strange character as `_`.

    A name that loses letters or is too long ends in a hash of the original: two such names stay apart.
    """
    plain = unicodedata.normalize("NFKD", name)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    found = _STRANGE.sub("_", plain)
    if not plain.isascii() or len(found) > longest or not found:
        return _marked(found, name, longest)
    return found


def _marked(found: str, name: str, longest: int) -> str:
    mark = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{found[: longest - 9]}_{mark}"


def _unique(names: Sequence[str], slugs: Sequence[str], *, wholes: Sequence[str], longest: int) -> list[str]:
    """A slug for each name, no two the same. A name that is its own slug keeps it, as pair lists expect.

    wholes: what tells the names apart, such as their paths: of two that want the same slug the later one is marked
    with the hash of its whole.
    """
    unique = dict.fromkeys(range(len(names)), "")
    taken: set[str] = set()
    for plain in (True, False):
        for place, (name, found, whole) in enumerate(zip(names, slugs, wholes, strict=True)):
            if unique[place] or (plain and (name != found or found in taken)):
                continue
            wanted = found
            while wanted in taken:
                wanted = _marked(found, whole, longest)
                whole += "\0"  # the mark may be a name of its own
            taken.add(wanted)
            unique[place] = wanted
    return list(unique.values())


def visible(name: str) -> str:
    """The name on one printable line: control characters, undecodable bytes and backslashes are escaped.

    Different names stay different, and plain ones stay as they are.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(
        letter if letter.isprintable() and letter != "\\" else letter.encode("unicode_escape").decode("ascii")
        for letter in name
    )


def identity_slugs(identities: Sequence[str]) -> dict[str, str]:
    """{identity: first part of its keys}."""
    found = [_identity_slug(name) for name in identities]
    slugs = _unique(identities, found, wholes=identities, longest=_LONGEST_IDENTITY)
    return dict(zip(identities, slugs, strict=True))


def stem_slugs(first: str, stems: Sequence[str], *, paths: Sequence[str]) -> list[str]:
    """Second parts of the keys that begin with `first`."""
    longest = LONGEST - 1 - len(first)
    found = [slug(stem, longest=longest) for stem in stems]
    return _unique(stems, found, wholes=paths, longest=longest)


def member_key(identity: str, stem: str) -> str:
    """The key of a sample whose names collide with no other's, as those of a pair list do."""
    first = _identity_slug(identity)
    return f"{first}/{slug(stem, longest=LONGEST - 1 - len(first))}"


def _identity_slug(identity: str) -> str:
    flat = identity.replace("/", "_")
    found = slug(flat, longest=_LONGEST_IDENTITY)
    return _marked(found.strip("_"), flat, _LONGEST_IDENTITY) if _SKIPPED.fullmatch(found) else found
