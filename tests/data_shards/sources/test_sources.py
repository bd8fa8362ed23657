"""The sources of public layouts: the files they list, their labels, crops and lists; the keys of samples."""

import os
import pickle
import re

import pytest
import webdataset

from data_shards.errors import UserError
from data_shards.shard_format.keys import LONGEST, identity_slugs, member_key, slug, stem_slugs
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.base import read_file
from data_shards.sources.registry import open_source, source_module, source_names
from launch.cli import main
from tests.support.image_folders import REAL, identity_folders, needs_real
from tests.support.small_set import jpeg, photo


def listed(source) -> dict[str, tuple[str, str, str]]:
    return {sample.path: (sample.identity, sample.stem, sample.unfit) for sample in source.samples()}


def test_registry_is_the_folder():
    assert {"folder", "lfw", "orl", "vggface2"} <= set(source_names())
    with pytest.raises(UserError, match=r"source=imagenet: unknown; choose one of .*celeba, .*folder, lfw"):
        open_source("imagenet", "x")
    with pytest.raises(UserError, match="colour=1: source=folder has no such key"):
        open_source("folder", "x", options={"colour": 1})


@pytest.mark.parametrize("name", source_names())
def test_the_help_of_a_source_says_what_its_keys_mean(name, capsys):
    module = source_module(name)
    assert set(getattr(module, "HELP", {})) <= set(module.OPTIONS)
    assert main(["pack", f"source={name}", "--help"]) == 0
    page = capsys.readouterr().out.partition(f"Keys of source={name}:\n")[2]
    for key in module.OPTIONS:
        assert re.search(
            rf"^  {key}=.*{re.escape(getattr(module, 'HELP', {}).get(key, '')[:20])}", page, re.M
        )
    assert page.strip() if module.OPTIONS else page == "  none\n"


@pytest.mark.parametrize("name", ["folder", "lfw", "orl", "vggface2"])
def test_wrong_folders_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"src=.*: No such file"):
        open_source(name, str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"src=.*: holds no folders"):
        open_source(name, str(tmp_path))


def test_folder_lists_everything(tmp_path):
    identity_folders(tmp_path, identities=2, images=2)
    (tmp_path / "person_00" / "2019" / "may").mkdir(parents=True)
    (tmp_path / "person_00" / "2019" / "may" / "x.y.JPG").write_bytes(b"1")
    (tmp_path / "person_00" / "loop").symlink_to(tmp_path / "person_00")
    (tmp_path / "person_00" / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "readme.txt").write_text("hello")
    os.mkfifo(tmp_path / "person_01" / "pipe")
    source = open_source("folder", str(tmp_path))
    assert listed(source) == {
        "person_00/p_0.jpg": ("person_00", "p_0", ""),
        "person_00/p_1.jpg": ("person_00", "p_1", ""),
        "person_00/nowhere.jpg": ("person_00", "nowhere", ""),
        "person_00/loop": ("person_00", "loop", "is a link to person_00, which has its own place"),
        "person_00/2019/may/x.y.JPG": ("person_00", "2019/may/x.y", ""),
        "person_01/p_0.jpg": ("person_01", "p_0", ""),
        "person_01/p_1.jpg": ("person_01", "p_1", ""),
        "person_01/pipe": ("person_01", "pipe", ""),
        "readme.txt": ("", "readme", "lies beside the identity folders"),
    }
    by_path = {sample.path: sample for sample in source.samples()}
    good = by_path["person_01/p_0.jpg"]
    data = pickle.loads(pickle.dumps(source)).read(good)
    assert data == (tmp_path / good.path).read_bytes()
    assert good.num_bytes == len(data)
    with pytest.raises(OSError, match="not a regular file"):
        source.read(by_path["person_01/pipe"])
    with pytest.raises(FileNotFoundError):
        source.read(by_path["person_00/nowhere.jpg"])


def test_a_link_to_itself_and_folders_of_programs_are_listed_and_left_out(tmp_path):
    identity_folders(tmp_path, identities=2, images=1)
    for place in (".", "person_00"):
        (tmp_path / place / "itself").symlink_to("itself")
        for name in (".ipynb_checkpoints", "@eaDir"):
            (tmp_path / place / name / "deeper").mkdir(parents=True)
            (tmp_path / place / name / "deeper" / "copy.jpg").write_bytes(b"1")
    source = open_source("folder", str(tmp_path))
    helper = "lies in {}, a folder of some program, not of people".format
    assert {path: unfit for path, (_, _, unfit) in listed(source).items()} == {
        "person_00/p_0.jpg": "",
        "person_01/p_0.jpg": "",
        "itself": "lies beside the identity folders",
        "person_00/itself": "",  # reading it fails, so it is reported
        ".ipynb_checkpoints/deeper/copy.jpg": helper(".ipynb_checkpoints"),
        "@eaDir/deeper/copy.jpg": helper("@eaDir"),
        "person_00/.ipynb_checkpoints/deeper/copy.jpg": helper(".ipynb_checkpoints"),
        "person_00/@eaDir/deeper/copy.jpg": helper("@eaDir"),
    }
    with pytest.raises(OSError, match="symbolic links"):
        source.read(next(sample for sample in source.samples() if sample.path == "person_00/itself"))
    (tmp_path / "alone" / ".git").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no folders"):
        open_source("folder", str(tmp_path / "alone"))


def test_reading_takes_all_and_no_more_than_an_image(tmp_path):
    (tmp_path / "big").write_bytes(b"x")
    os.truncate(tmp_path / "big", 1 << 30)
    with pytest.raises(OSError, match="1024 MB are too many"):
        read_file(str(tmp_path / "big"))
    (tmp_path / "empty").write_bytes(b"")
    assert read_file(str(tmp_path / "empty")) == b""


def test_lfw_is_found_below_its_archive_folder(tmp_path):
    root = tmp_path / "lfw-deepfunneled" / "lfw-deepfunneled"
    (root / "Ann_Lee").mkdir(parents=True)
    (root / "Ann_Lee" / "Ann_Lee_0001.jpg").write_bytes(b"1")
    (tmp_path / "pairs.txt").write_text("10 300")
    found = listed(open_source("lfw", str(tmp_path)))
    assert found == {"Ann_Lee/Ann_Lee_0001.jpg": ("Ann_Lee", "Ann_Lee_0001", "")}


def test_lfw_is_cut_to_the_face(tmp_path):
    for number in range(2):
        folder = tmp_path / "src" / "lfw" / f"Ann_{number}"
        folder.mkdir(parents=True)
        (folder / f"Ann_{number}_0001.jpg").write_bytes(jpeg(photo(number, 250, 250)))
    for words, side in (
        ([], 150),
        (["crop=100"], 100),
        (["crop=0.5"], 125),
        (["crop=1"], 250),
        (["crop=999"], 250),
    ):
        out = tmp_path / "-".join(["out", *words])
        assert main(["pack", "source=lfw", f"src={tmp_path / 'src'}", f"out={out}", "workers=1", *words]) == 0
        shards = ShardSet.open(out / "train")
        assert set(shards.width) == set(shards.height) == {side}
        assert shards.manifest["options"] == {"crop": float(words[0][5:]) if words else 150.0}
        assert shards.manifest["converted"] == ({"cut": 2} if side < 250 else {})
    assert main(["pack", "source=lfw", f"src={tmp_path / 'src'}", f"out={tmp_path / 'x'}", "crop=0"]) == 2


def test_orl_takes_subject_folders_only(tmp_path):
    for name in ("s1", "s12", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.pgm").write_bytes(b"1")
    found = listed(open_source("orl", str(tmp_path)))
    assert {path: bool(unfit) for path, (_, _, unfit) in found.items()} == {
        "s1/1.pgm": False,
        "s12/1.pgm": False,
        "other/1.pgm": True,
    }
    (tmp_path / "other" / "inner").mkdir()
    with pytest.raises(UserError, match="has no folders s1"):
        open_source("orl", str(tmp_path / "other"))


META = {
    "published": 'Class_ID, Name, Sample_Num, Flag, Gender\nn000001, "Ann, Lee", 4, 1, f\n'
    'n000002, "Bo", 4, 0, m\n',
    "spreadsheet": 'Class_ID, Name, Sample_Num, Flag, Gender\r\nn000001," ""Ann, Lee""",4,1, f\r\n'
    'n000002," ""Bo""",4,0, m\r\n',
    "semicolons": "\ufeffClass_ID;Name;Sample_Num;Flag;Gender\nn000001;Ann;4;1;F\nn000002;Bo;4;0;M\n",
}


@pytest.fixture
def vggface2(tmp_path):
    for person in ("n000001", "n000002", "n000003"):
        (tmp_path / "train" / person).mkdir(parents=True)
        for number in (1, 2):
            (tmp_path / "train" / person / f"000{number}_01.jpg").write_bytes(b"1")
    return tmp_path


@pytest.mark.parametrize("meta", META.values(), ids=META)
def test_vggface2_genders(vggface2, meta):
    (vggface2 / "identity_meta.csv").write_bytes(meta.encode())
    source = open_source("vggface2", str(vggface2))
    assert dict(source.fields) == {"gender": "i4"}
    found = {sample.identity: sample.labels for sample in source.samples()}
    assert found == {"n000001": (0,), "n000002": (1,), "n000003": (-1,)}


def test_vggface2_list_decides(vggface2):
    (vggface2 / "train_list.txt").write_text(
        "n000001/0001_01.jpg\nn000001/0001_01.jpg\nn000002/0002_01.jpg\nn000009/0001_01.jpg\n"
    )
    source = open_source("vggface2", str(vggface2))
    found = listed(source)
    assert sorted(path for path, (_, _, unfit) in found.items() if not unfit) == [
        "n000001/0001_01.jpg",
        "n000002/0002_01.jpg",
        "n000009/0001_01.jpg",
    ]
    assert found["n000001/0002_01.jpg"][2] == "is not in the list of the split"
    missing = next(sample for sample in source.samples() if sample.identity == "n000009")
    with pytest.raises(FileNotFoundError):
        source.read(missing)


def test_vggface2_list_in_another_coding_finds_files_of_that_name(vggface2):
    name = os.fsdecode("José.jpg".encode("latin-1"))
    (vggface2 / "train" / "n000001" / name).write_bytes(b"1")
    (vggface2 / "train_list.txt").write_bytes("n000001/José.jpg\n".encode("latin-1"))
    found = [sample for sample in open_source("vggface2", str(vggface2)).samples() if not sample.unfit]
    assert [sample.path for sample in found] == [f"n000001/{name}"]


def test_vggface2_boxes(vggface2):
    with pytest.raises(UserError, match=r"crop=true: .*loose_bb_train.csv"):
        open_source("vggface2", str(vggface2), options={"crop": True})
    (vggface2 / "bb_landmark").mkdir()
    table = vggface2 / "bb_landmark" / "loose_bb_train.csv"
    table.write_text('NAME_ID,X,Y,W,H\n"n000001/0001_01",16,14,22,32\n"n000002/0001_01",-3,0,9,9\n')
    samples = open_source("vggface2", str(vggface2), options={"crop": True}).samples()
    found = {sample.path: (sample.crop, sample.unfit) for sample in samples}
    assert found["n000001/0001_01.jpg"] == ((16, 14, 22, 32), "")
    assert found["n000002/0001_01.jpg"] == ((-3, 0, 9, 9), "")
    assert found["n000003/0001_01.jpg"] == (None, "has no row in loose_bb")
    table.write_bytes("NAME_ID,X,Y,W,H\nJosé,1,2,3,4\n".encode("latin-1"))
    samples = open_source("vggface2", str(vggface2), options={"crop": True}).samples()
    assert {sample.crop for sample in samples} == {None}
    table.write_text("NAME_ID,X,Y\n1,2,3\n")
    with pytest.raises(UserError, match="line 2: is not NAME_ID"):
        open_source("vggface2", str(vggface2), options={"crop": True})


def test_vggface2_names_the_split_that_is_there(vggface2):
    with pytest.raises(UserError, match="of split=test; type split=train"):
        open_source("vggface2", str(vggface2), split="test")
    inner = open_source("vggface2", str(vggface2 / "train"))
    assert len(list(inner.samples())) == 6


def test_webdataset_reads_the_people_whose_names_look_like_its_own(tmp_path):
    names = ["__pycache__", "____", "++x++", "__x__y", "a__b__", "__x_"]
    identity_folders(tmp_path / "src", identities=len(names), images=1)
    for folder, name in zip(sorted((tmp_path / "src").iterdir()), names, strict=True):
        folder.rename(tmp_path / "src" / name)
    assert identity_slugs(names[3:]) == {name: name for name in names[3:]}
    words = ["source=folder", f"src={tmp_path / 'src'}", f"out={tmp_path / 'out'}", "workers=1"]
    assert main(["pack", *words]) == 0
    urls = [str(path) for path in sorted((tmp_path / "out" / "train").glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(samples) == len(names)
    assert len(set(identity_slugs(names).values())) == len(names)
    assert not any(key.startswith("__") and key.endswith("__") for key in identity_slugs(names).values())


def test_no_name_takes_the_key_of_another():
    names = ["k!b", "k?b", "k_b"]
    slugs = identity_slugs(names)
    assert slugs["k_b"] == "k_b"  # the plain name keeps it, so pair lists find its images
    names += [slugs["k!b"], slugs["k?b"], "José", slug("José")]  # names that are what others were given
    assert len(set(identity_slugs(sorted(names)).values())) == len(names)
    assert {name: identity_slugs(names)[name] for name in names[3:5]} == {name: name for name in names[3:5]}
    stems = ["a b", "a!b", "a_b", slug("é")]
    stems += stem_slugs("x", stems, paths=stems)[:2]
    assert len(set(stem_slugs("x", stems, paths=[f"{stem}.jpg" for stem in stems]))) == len(stems)


def test_keys_are_readable_short_and_apart():
    assert member_key("Aaron_Peirsol", "Aaron_Peirsol_0001") == "Aaron_Peirsol/Aaron_Peirsol_0001"
    assert slug("José Núñez.v2") == "Jose_Nunez_v2"
    names = ["A.B", "A_B", "A B", "李明", "王明", "x" * 200, "x" * 201, "", "a/b", "ß"]
    slugs = list(identity_slugs(names).values())
    assert len(set(slugs)) == len(names)
    stems = stem_slugs(
        slugs[5], ["1", "1", "y" * 300, "y" * 301, "d/é"], paths=["1.jpg", "1.png", "a", "b", "c"]
    )
    assert len(set(stems)) == len(stems)
    for key in (f"{slugs[5]}/{stem}" for stem in stems):
        assert len(key) <= LONGEST
        assert key.isascii()
        assert "." not in key


@needs_real
@pytest.mark.parametrize(
    ("name", "folder", "split", "samples", "identities"),
    [
        ("lfw", "lfw", "train", 750, 125),
        ("folder", "lfw_train_112", "train", 4517, 1184),
        ("orl", "orl_att", "train", 200, 20),
        ("vggface2", "vggface2", "test", 32, 3),
    ],
)
def test_real_layouts(name, folder, split, samples, identities):
    found = list(open_source(name, str(REAL / folder), split=split).samples())
    assert not [sample for sample in found if sample.unfit]
    assert len(found) == samples
    assert len({sample.identity for sample in found}) == identities
    if name == "vggface2":  # the broken identity_meta.csv says that all three are women
        assert {sample.labels for sample in found} == {(0,)}


@pytest.mark.parametrize("typed", ["{}/", "{}/.", "{}//"])
def test_vggface2_finds_its_lists_however_the_folder_is_typed(vggface2, typed):
    (vggface2 / "identity_meta.csv").write_text(META["published"])
    (vggface2 / "train_list.txt").write_text("n000001/0001_01.jpg\n")
    source = open_source("vggface2", typed.format(vggface2 / "train"))
    found = [sample for sample in source.samples() if not sample.unfit]
    assert [(sample.identity, sample.labels) for sample in found] == [("n000001", (0,))]


def test_the_help_of_a_source_lists_its_keys(capsys):
    assert main(["pack", "source=vggface2", "--help"]) == 0
    assert "crop=" in capsys.readouterr().out
    assert main(["pack", "--help"]) == 0
    assert "holdout=" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["/elsewhere", "a/b", ""])
def test_a_split_is_a_plain_name(tmp_path, split, capsys):
    words = ["source=procedural", "identities=2", "per_identity=2", f"out={tmp_path / 'o'}", f"split={split}"]
    assert main(["pack", *words]) == 2
    assert "a plain name such as train or test" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
