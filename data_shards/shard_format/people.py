"""When two packed sets show the same person, or parts of the same clip: how names of sets are compared.

Names are compared without regard to case, accents' composition, spaces and underscores. One that holds a
digit (`s1`, `n000123`) counts within one data set only: another set numbers other people.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_shards.shard_format.columns import load_column, verify_file

# Of sets whose source states groups: a hash of what must not be split of each sample, such as its clip.
GROUP = "index/group.npy"
OWN_NAMES = ("folder", "procedural")  # sources that stand for any number of data sets
_APART = re.compile(r"[\s_\-.]+")


def normalised(name: str) -> str:
    """Return the form in which a name is compared."""
    return _APART.sub(" ", unicodedata.normalize("NFKC", name).casefold()).strip()


def one_set(name: str, source: str, other_name: str, other_source: str) -> bool:
    """Whether two packed sets, by name and source, are parts of one data set, so that numbers are shared."""
    return name == other_name or (source == other_source and source not in OWN_NAMES)


def numbered(name: str) -> bool:
    """Whether a name holds a digit, so that it means something within its own data set only."""
    return any(map(str.isdigit, name))


def hashes(names: Sequence[str]) -> np.ndarray:
    """Return 8 bytes of a hash of each name, [n] u8; equal for names that are compared as equal."""
    return whole_hashes([normalised(name) for name in names])


def whole_hashes(names: Sequence[str]) -> np.ndarray:
    """Return 8 bytes of a hash of each name as it stands, [n] u8."""
    digests = (hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names)
    return np.array([int.from_bytes(digest[:8], "little") for digest in digests], "u8")


def groups_of(shards: Any) -> np.ndarray | None:
    """Return the hashes of the groups (clips, events) of an opened set, [n] u8, 0 for a sample without one.

    None where the set states none. Raises UserError if the file is not what was packed.
    """
    entry = next((entry for entry in shards.manifest["files"] if entry["name"] == GROUP), None)
    if entry is None:
        return None
    verify_file(shards.folder / GROUP, entry)
    return load_column(shards.folder / GROUP, "u8", len(shards))
