"""Real and fake faces: SRC/[Train|Validation|Test/]Real|Fake/ with images, folders of frames, or videos.

    Real/x.jpg                 an image of a clip that is not known
    Real/<clip>/0001.jpg       a clip: the frames of a folder, at any depth
    Real/<clip>.mp4            a clip: `frames` of it, evenly spaced (needs PyAV)

The person of a frame is its clip, so frames of a clip are in one set and are judged together. A fake is also
kept beside the real clips that its name is made of: in FaceForensics++ 000_003 is made of 000 and 003.
"""

import os
from collections.abc import Iterator, Mapping

from data_shards.errors import UserError
from data_shards.images.normalize import pixels
from data_shards.images.pixels import Rejected
from data_shards.shard_format.schema import Field
from data_shards.sources.base import FileSource, Sample, netpbm, read_file, stem
from data_shards.sources.class_folders import ClassFile, check_partition, class_files
from data_shards.sources.video_frames import check_reader, frame, is_video

OPTIONS: dict[str, object] = {
    "partition": "auto",
    "frames": 16,
    "faces": False,
    "margin": 0.3,
    "near": False,
    "near_bits": 56,
}
HELP = {
    "partition": "auto (official where there are such folders) | official | none (by the hash of the clip)",
    "frames": "of each video, evenly spaced",
    "faces": "cut the largest face of each image, as source=faces_from does",
    "margin": "around that face, as a share of its side",
    "near": "keep images of unknown clips that look alike in one set",
    "near_bits": "of the 256 of their perceptual hashes that may differ",
}
CLASSES = ("fake", "real")  # 0 and 1, as the published weights of MesoNet have it
_FOLDERS = {
    **dict.fromkeys(("fake", "fakes", "df", "forged", "manipulated_sequences", "celeb-synthesis"), 0),
    **dict.fromkeys(("real", "reals", "original", "original_sequences", "celeb-real", "youtube-real"), 1),
}
_BELOW_CLIPS = ("frames", "images", "faces", "crops")  # folders in that of a clip
HASHED = 256  # bits of a perceptual hash


class Deepfake(FileSource):
    """Images and frames with the label `deepfake`."""

    name = "deepfake"
    licence = "not stated by the source: check the terms of the pictures before you share them"
    fields: Mapping[str, Field | str] = {"deepfake": Field("class", "i4", names=CLASSES, unknown=None)}
    cls = "deepfake"

    def __init__(
        self,
        root: str,
        files: list[ClassFile],
        *,
        frames: int,
        margin: float | None,
        near: int,
        official: bool,
    ) -> None:
        """margin: around the face that is cut (None = whole images).

        near: bits by which hashes of images that are kept together may differ (-1 = none are).
        """
        super().__init__(root)
        self.files, self.frames, self.margin, self.near = files, frames, margin, near
        self.official = official
        self.cluster = any(clip_of(file) for file in files)

    def __getstate__(self) -> dict[str, object]:
        """Workers only read files, so the listing is not sent to them."""
        return vars(self) | {"files": []}

    def samples(self) -> Iterator[Sample]:
        groups = {} if self.official else _groups_of_clips(self.files)
        if self.near >= 0:
            groups |= self._alike([file.path for file in self.files if not file.unfit and not clip_of(file)])
        for file in self.files:
            name = stem(os.path.basename(file.path))
            if file.unfit:
                yield Sample(file.path, "", name, file.num_bytes, unfit=file.unfit)
                continue
            clip = clip_of(file)
            person = f"{CLASSES[file.number]}/{clip}" if clip else ""
            group, part = groups.get(clip or file.path, ""), file.part if self.official else ""
            sample = Sample(file.path, person, name, file.num_bytes, (file.number,), group=group, split=part)
            if not is_video(file.path):
                yield sample
                continue
            for number in range(self.frames):
                yield sample._replace(path=f"{file.path}#{number}", stem=f"{number:04d}", num_bytes=0)

    def _alike(self, paths: list[str]) -> dict[str, str]:
        """{path: the first path of those that look alike}, for all that are not alone."""
        import numpy as np

        from data_shards.inspect.fingerprints import perceptual_hash
        from data_shards.inspect.near_hashes import near_pairs
        from data_shards.sources.faces_from import in_grey

        hashes, names = [], []
        for path in paths:
            try:
                image = pixels(read_file(os.path.join(self.root, path)))
            except (OSError, Rejected):
                continue  # the packer lists it
            hashes.append(perceptual_hash(in_grey(image)[..., 0]))
            names.append(path)
        pairs = near_pairs(np.stack(hashes), self.near) if hashes else np.empty((0, 2), np.int64)
        return joined((names[first], names[second]) for first, second in pairs.tolist())

    def read(self, sample: Sample) -> bytes:
        path, hash_sign, number = sample.path.rpartition("#")
        if hash_sign and is_video(path):
            data = frame(os.path.join(self.root, path), int(number), self.frames)
        else:
            data = super().read(sample)
        if self.margin is None:
            return data
        from data_shards.sources.faces_from import cut, largest_face

        image = pixels(data)
        box = largest_face(image)
        if box is None:
            raise OSError("shows no face that the detector finds")
        return netpbm(cut(image, box, margin=self.margin))


def clip_of(file: ClassFile) -> str:
    """The name of a file's clip within its class ("" = it is not known)."""
    inner = file.inner.split("/") if file.inner else []
    if is_video(file.path):
        return "/".join([*inner, stem(os.path.basename(file.path))])
    while len(inner) > 1 and inner[-1].lower() in _BELOW_CLIPS:
        inner.pop()
    return "/".join(inner)


def joined(pairs: Iterator[tuple[str, str]]) -> dict[str, str]:
    """{name: the first name of those that pairs join it with}, for every name of a pair."""
    root: dict[str, str] = {}

    def first(name: str) -> str:
        while root.setdefault(name, name) != name:
            root[name] = root[root[name]]
            name = root[name]
        return name

    for one, other in pairs:
        one, other = first(one), first(other)
        root[max(one, other)] = min(one, other)
    return {name: first(name) for name in root}


def _groups_of_clips(files: list[ClassFile]) -> dict[str, str]:
    """{clip: its group}: clips of one name, real and fake, and a fake with the real ones that name it."""
    clips = {(file.number, clip) for file in files if (clip := clip_of(file))}
    real = {os.path.basename(clip): clip for number, clip in sorted(clips) if number == 1}

    def pairs() -> Iterator[tuple[str, str]]:
        for number, clip in sorted(clips):
            name = os.path.basename(clip)
            yield clip, clip
            for part in [name, *name.split("_")] if number == 0 else ():
                if part in real:
                    yield clip, real[part]

    return joined(pairs())


def source(
    src: str,
    *,
    split: str,
    partition: str = "auto",
    frames: int = 16,
    faces: bool = False,
    margin: float = 0.3,
    near: bool = False,
    near_bits: int = 56,
) -> Deepfake:
    """Open src, the folder of the parts or of Real and Fake. Raises UserError."""
    from data_shards.sources.faces_from import check_margin

    del split  # all official parts are packed, each into its own set
    check_partition(partition)
    check_margin(margin)
    if not 1 <= frames <= 10_000:
        raise UserError(f"frames={frames}: type 1 to 10000 frames of each video, e.g. 16")
    if not 0 <= near_bits <= HASHED // 2:
        raise UserError(f"near_bits={near_bits}: type 0 to {HASHED // 2} bits, e.g. 56")
    if not os.path.isdir(src):
        raise UserError(f"src={src}: is not a folder; give the folder that holds Real and Fake")
    files = list(class_files(src, _FOLDERS))
    if not any(file.number >= 0 for file in files):
        raise UserError(f"src={src}: has no folders Real and Fake with files; give the folder that has them")
    parts = any(file.part for file in files)
    if partition == "official" and not parts:
        raise UserError(f"partition=official: {src} has no folder Train, Validation or Test; type none")
    official = parts and partition != "none"
    if near and official:
        raise UserError(f"near=true: {src} has official parts, which decide; type partition=none beside it")
    if video := next((file.path for file in files if is_video(file.path)), ""):
        check_reader(os.path.join(src, video))
    return Deepfake(
        src,
        files,
        frames=frames,
        margin=margin if faces else None,
        near=near_bits if near else -1,
        official=official,
    )
