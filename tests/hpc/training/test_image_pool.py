"""The pool of generated images: the rule of the paper, at any number of ranks and micro batches alike."""

import numpy as np
import pytest
import torch

from data_shards import counter_rng
from data_shards.errors import UserError
from hpc.distributed.comm import Comm
from hpc.training.image_pool import ImagePool, places
from tests.support.host_reads import HostReads
from tests.support.pool_ranks import SIZE, image, judged
from tests.support.ranks import launch


def test_with_batches_of_one_it_is_the_rule_of_the_paper():
    found, state = judged(Comm(), 1, 200, 0)
    stream = counter_rng.key(3, "image pool", "a")
    kept: list[float] = []
    for position, seen in enumerate(found[:, 0].tolist()):
        expected = float(position)
        if len(kept) < SIZE:
            kept.append(expected)
        elif counter_rng.uniform(stream, np.array([position]), 1)[0, 0] < 0.5:
            order = counter_rng.derive(stream, np.int64(position))[0]
            place = int(counter_rng.permute(order, np.array([0]), SIZE)[0])
            expected, kept[place] = kept[place], expected
        assert seen == expected
    assert state["images"][:, 0, 0, 0].tolist() == kept
    torch.testing.assert_close(state["images"], image(torch.tensor(kept)))


def test_half_of_the_images_are_earlier_ones_each_seen_at_most_twice():
    found, state = judged(Comm(), 8, 250, 0)
    positions = torch.arange(2000).view(250, 8)
    earlier = found < positions
    assert (found <= positions).all()
    assert not earlier[:2].any()  # those that fill the pool, and the rest of that update
    assert earlier[2:].float().mean() == pytest.approx(0.5, abs=0.04)
    assert found.unique(return_counts=True)[1].max() <= 2
    everything = torch.cat([found.flatten(), state["images"][:, 0, 0, 0]])
    counts = torch.bincount(everything.long())
    assert (counts[SIZE:16] == 1).all()  # passed through while the pool was filling
    assert len(counts) == 2000


@pytest.mark.parametrize(("batch", "micro"), [(8, 2), (8, 4), (4, 1)])
def test_micro_batches_change_nothing(batch, micro):
    whole, whole_state = judged(Comm(), batch, 12, 0)
    parts, parts_state = judged(Comm(), batch, 12, micro)
    assert torch.equal(whole, parts)
    torch.testing.assert_close(whole_state, parts_state, rtol=0, atol=0)


@pytest.mark.parametrize(("world", "micro"), [(2, 0), (2, 2), (4, 1)])
def test_ranks_change_nothing_and_hold_the_same_pool(world, micro):
    alone, state = judged(Comm(), 8, 8, 0)
    ranks = launch(judged, world, 8, 8, micro)
    assert torch.equal(torch.cat([found for found, _ in ranks], 1), alone)
    for _, other in ranks:
        torch.testing.assert_close(other, state, rtol=0, atol=0)


def test_a_restored_pool_continues_as_if_it_had_never_stopped():
    found, state = judged(Comm(), 4, 20, 0)
    first, middle = judged(Comm(), 4, 9, 0)
    second, end = judged(Comm(), 4, 11, 0, clock=36, state=middle)
    assert torch.equal(torch.cat([first, second]), found)
    torch.testing.assert_close(end, state, rtol=0, atol=0)


def test_pools_of_other_names_and_seeds_keep_others():
    where = [
        places(np.arange(40, 48), clock=40, batch=8, size=10, seed=seed, name=name)
        for seed, name in [(3, "a"), (3, "b"), (4, "a")]
    ]
    assert len({tuple(place.slots) for place in where}) == 3
    for place in where:
        used = place.slots[place.slots >= 0]
        assert len(set(used.tolist())) == len(used) == place.swapped.sum()


def test_what_is_judged_has_no_graph_and_nothing_is_read_from_the_device():
    pool, positions = ImagePool(4, seed=0, name="a"), torch.arange(4)
    with HostReads() as reads:
        for start in (0, 4, 8):
            made = image(positions + start).requires_grad_()
            found = pool.exchange(made, positions + start, clock=start, batch=4, comm=Comm())
            assert not found.requires_grad
    assert reads.found == []
    none = ImagePool(0, seed=0, name="a")
    assert torch.equal(none.exchange(made, positions, clock=0, batch=4, comm=Comm()), made)


def test_what_does_not_fit_is_refused():
    pool = ImagePool(4, seed=0, name="a")
    with pytest.raises(UserError, match="batch=8 is more than the pool's 4 images: use batch=4"):
        pool.exchange(image(torch.arange(8)), torch.arange(8), clock=0, batch=8, comm=Comm())
    pool.exchange(image(torch.arange(4)), torch.arange(4), clock=0, batch=4, comm=Comm())
    with pytest.raises(UserError, match=r"shape \(3, 2, 2\), these have \(3, 4, 4\): keep data.size"):
        pool.exchange(torch.zeros(4, 3, 4, 4), torch.arange(4), clock=4, batch=4, comm=Comm())
    with pytest.raises(UserError, match="has 5 images, that of the checkpoint 4: give 4"):
        ImagePool(5, seed=0, name="a").load_state(pool.state())
