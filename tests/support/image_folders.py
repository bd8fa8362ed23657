"""Folders of images for the tests of packing."""

import hashlib
import os
from pathlib import Path

import pytest

from tests.support.small_set import jpeg, photo

REAL = Path(os.environ.get("ROSTRO_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real samples in {REAL}: set ROSTRO_DATA")


def identity_folders(root: Path, *, identities: int = 6, images: int = 4, side: int = 48) -> Path:
    """root/person_00/p_0.jpg ...; every image is another one."""
    for person in range(identities):
        folder = root / f"person_{person:02d}"
        folder.mkdir(parents=True)
        for number in range(images):
            data = jpeg(photo(1000 * person + number, side, side))
            (folder / f"p_{number}.jpg").write_bytes(data)
    return root


def tree(root: Path) -> dict[str, str]:
    """{relative path: sha256} of all files below root, hidden ones too."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
