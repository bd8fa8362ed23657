"""People whom the source does not know are -1: each image is a group of its own, and none is like another."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import UserError
from data_shards.inspect.check import check_set
from data_shards.inspect.summary import contact_sheet, facts
from data_shards.loading.stream import StreamLoader
from data_shards.pack.layout import group, rank, split_identities, split_samples
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.sampling.order import GroupOrder
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.base import FileSource, Sample, read_file
from hpc.config.schema import Config, Data
from hpc.data import known_people, orders
from hpc.metrics.pairs import all_pairs
from tests.support.image_folders import identity_folders


class Crowd(FileSource):
    """Identity folders; who is in the folders `nobody` names is not known."""

    name, licence = "crowd", "none"

    def __init__(
        self, root: Path, nobody: tuple[str, ...], *, cluster: bool = True, groups: bool = False
    ) -> None:
        super().__init__(root)
        self.nobody, self.cluster, self.groups = nobody, cluster, groups

    def sample(self, identity: str, path: str, num_bytes: int) -> Sample:
        sample = super().sample(identity, path, num_bytes)
        if identity in self.nobody:
            sample = sample._replace(identity="", group=identity if self.groups else "")
        return sample


PEOPLE = tuple(f"person_{number:02d}" for number in range(8))
REQUEST = Request(name="x", shard_mb=0.02)


@pytest.fixture(scope="module")
def src(tmp_path_factory):
    return identity_folders(tmp_path_factory.mktemp("src"), identities=8, images=3, side=24)


@pytest.fixture(scope="module")
def some(src, tmp_path_factory):
    """Five known people, three unknown ones."""
    return pack(Crowd(src, PEOPLE[:3]), tmp_path_factory.mktemp("some"), REQUEST, workers=1)[0].folder


@pytest.fixture(scope="module")
def none(src, tmp_path_factory):
    source = Crowd(src, PEOPLE, cluster=False)
    return pack(source, tmp_path_factory.mktemp("none"), REQUEST, workers=1)[0].folder


def paths_of(shards: ShardSet) -> list[str]:
    """person_00/p_1 of each row; keys of unknown ones are made of the path."""
    keys = [shards.member(row).removesuffix(".jpg") for row in range(len(shards))]
    return [
        key if key.count("_") == 2 else key.partition("_p_")[0] + "/" + key.rpartition("/")[2] for key in keys
    ]


def test_known_people_come_first_and_the_others_are_minus_one(some):
    shards = ShardSet.open(some)
    assert (shards.schema.number, shards.manifest["schema"], shards.manifest["unknown"]) == (2, 2, 9)
    assert sorted(shards.identity_names()) == list(PEOPLE[3:])
    known = int(shards.identity_start[-1])
    assert known == 15
    identity = np.asarray(shards.labels["identity"])
    assert (identity[:known] == np.repeat(np.arange(5), 3)).all()
    assert (identity[known:] == -1).all()
    paths = paths_of(shards)
    assert {path.partition("/")[0] for path in paths[known:]} == set(PEOPLE[:3])
    ranks = [rank(f"{path}.jpg", 0, "order") for path in paths[known:]]
    assert ranks == sorted(ranks)
    assert not list(check_set(some, workers=1))


def test_a_set_of_unknown_people_is_shuffled_by_the_hash_of_the_paths(none):
    shards = ShardSet.open(none)
    assert (shards.manifest["identities"], shards.manifest["unknown"], len(shards)) == (0, 24, 24)
    ranks = [rank(f"{path}.jpg", 0, "order") for path in paths_of(shards)]
    assert ranks == sorted(ranks)
    assert (np.asarray(shards.labels["identity"]) == -1).all()
    assert not list(check_set(none, workers=1))
    assert dict(facts(shards))["identities"] == "none is known"
    sheet, damaged = contact_sheet(shards)
    assert damaged == 0
    assert sheet.any()


def test_info_counts_them(some):
    shards = ShardSet.open(some)
    rows = dict(facts(shards))
    assert rows["identities"].startswith("5, 3 to 3")
    assert rows["unknown"].startswith("9 images")
    assert contact_sheet(shards)[0].shape[0] > contact_sheet(shards, rows=5)[0].shape[0] - 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.2, 0.5))
def test_each_is_a_group_of_its_own_where_sets_are_cut(seed, share):
    samples = [Sample(f"a/{number}.jpg", "", str(number)) for number in range(60)]
    samples += [Sample(f"b/{number}.jpg", f"p{number % 20}", str(number)) for number in range(60)]
    divide = partial(split_identities, holdout=share, val=0.0, split="train", seed=seed)
    parts = split_samples(group(samples)[0], divide, seed=seed)
    where = {one.path: part for part, members in parts for each in members.values() for one in each}
    assert len(where) == 120
    fewer = split_samples(group(samples[::2])[0], divide, seed=seed)
    assert all(
        where[one.path] == part for part, members in fewer for each in members.values() for one in each
    )
    assert {where[f"a/{number}.jpg"] for number in range(60)} == {"train", "eval"}


def test_a_group_that_the_source_states_keeps_them_together(src, tmp_path):
    sets = pack(Crowd(src, PEOPLE, groups=True), tmp_path, Request(name="x", holdout=0.4, seed=2), workers=1)
    found = [{path.partition("/")[0] for path in paths_of(ShardSet.open(made.folder))} for made in sets]
    assert len(found) == 2
    assert not found[0] & found[1]


def test_groups_leave_them_out(some, none):
    shards = ShardSet.open(some)
    order = GroupOrder(shards, 0, 2)
    ids = order.slots(0, order.epoch_slots).ids[:, 0]
    assert set(ids.tolist()) == set(range(15))
    assert orders.epoch_images(Config(data=Data(order="groups")), [shards]) == 15
    orders.check_groups(Data(order="groups"), orders.Rows(shards))
    empty = ShardSet.open(none)
    with pytest.raises(
        UserError, match=r"data\.order=groups: no person of .* does not keep people together: use"
    ):
        orders.check_groups(Data(order="groups"), orders.Rows(empty))
    with pytest.raises(UserError, match="holds no identities"):
        GroupOrder(empty, 0, 2)


def test_a_stream_in_groups_refuses_them(some):
    loader = StreamLoader(
        str(some), seed=0, rank=0, world=1, batch=6, view=View((24, 24)), threads=1, ahead=1, group=2
    )
    loader.start(0)
    batches = (loader.next() for _ in range(10))
    try:
        with pytest.raises(UserError, match=r"shows an unknown person, data\.order=groups of a stream needs"):
            list(batches)
    finally:
        loader.close()


@given(st.lists(st.integers(-1, 4), min_size=4, max_size=40))
def test_no_pair_holds_one(identity):
    people = np.array(identity)
    known = people[people >= 0]
    if len(np.unique(known)) < 2 or np.bincount(known).max() < 2:
        with pytest.raises(UserError):
            all_pairs(people)
        return
    pairs, same = all_pairs(people), all_pairs(known)
    assert (people[pairs.first] >= 0).all()
    assert (people[pairs.second] >= 0).all()
    assert (pairs.same == (people[pairs.first] == people[pairs.second])).all()
    assert (len(pairs), pairs.total_genuine, pairs.total_impostors) == (
        len(same),
        same.total_genuine,
        same.total_impostors,
    )


def test_the_loss_pairs_none_of_them():
    import torch

    from hpc.distributed.comm import Comm
    from hpc.losses.pairs import form_pairs

    comm = Comm(rank=0, world=1, local_rank=0, device=torch.device("cpu"))
    own = torch.nn.functional.normalize(torch.randn(5, 3), dim=1)
    pairs = form_pairs(own, torch.tensor([0, -1, 0, -1, 1]), torch.arange(5), comm)
    genuine, impostor = pairs.genuine.mask, pairs.impostor.mask
    assert sorted(map(tuple, genuine.nonzero().tolist())) == [(0, 2), (2, 0)]
    assert sorted(map(tuple, impostor.nonzero().tolist())) == [(0, 4), (2, 4), (4, 0), (4, 2)]


def test_sets_share_no_unknown_person_but_the_same_image(some, none, src, tmp_path):
    known = known_people.people_of(ShardSet.open(some))
    assert len(known.names) == 5
    fresh = identity_folders(tmp_path / "other", identities=9, images=2, side=28)
    other = pack(Crowd(fresh, tuple(os.listdir(fresh))), tmp_path / "out", REQUEST, workers=1)[0].folder
    assert known_people.shared(known, ShardSet.open(other)) == []
    same = known_people.shared(known, ShardSet.open(none))
    assert len(same) == 24
    assert all(name.startswith("an unknown one (person_") for name in same)


def test_several_images_of_a_person_need_a_source_that_clusters(src, tmp_path):
    with pytest.raises(
        UserError, match=r"cluster=False, but 'person_00' has several images .*; correct the sou"
    ):
        pack(Crowd(src, (), cluster=False), tmp_path, REQUEST, workers=1)


def test_an_unreadable_unknown_is_rejected_as_any_other(src, tmp_path):
    class Broken(Crowd):
        def read(self, sample: Sample) -> bytes:
            return (
                b"x" if sample.path.endswith("p_1.jpg") else read_file(os.path.join(self.root, sample.path))
            )

    made = pack(Broken(src, PEOPLE[:3]), tmp_path, REQUEST, workers=1)[0]
    assert (made.manifest["rejected"], made.manifest["unknown"], made.manifest["samples"]) == (8, 6, 16)
    assert not list(check_set(made.folder, workers=1))
