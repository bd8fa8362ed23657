"""The memory of ranks that write a state of class centres together, beside rank 0 writing all of it.

`python bench/shards.py` cuts a state of 2 GB (centres, two moments of Adam, an average) over 2 and over 4
ranks. Each measures by how much its resident memory rises at most above what it holds (`ru_maxrss`): in a
save of pieces, in an asynchronous one, and where the pieces are gathered on rank 0 and written there. Then 3
fresh ranks read their rows of what 4 wrote. Bars: a save of pieces adds < 64 MB on any rank, whatever the
size of the state; an asynchronous one its copy of the share besides. Prints one table and one JSON line; exit
code 1 where a bar is missed.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

COLUMNS, BUFFER, READERS = 512, 64e6, 3
OPTIM = ("exp_avg", "exp_avg_sq")
WAYS = ("pieces", "asynchronous", "gathered")


def resident() -> int:
    """Return the bytes that this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rise(action: Callable[[], object]) -> dict[str, float]:
    """Return by how many bytes the resident memory rises at most during `action`, and its seconds."""
    held, start = resident(), time.perf_counter()
    action()
    seconds = time.perf_counter() - start
    return {"bytes": max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held), "s": seconds}


def state_of(rows: Any) -> Any:
    """Make this rank's rows of centres, moments and average."""
    import torch

    from hpc.training.player import PlayerState

    def make(value: float) -> torch.Tensor:  # in place, so that nothing else is ever held
        return torch.empty(rows.high - rows.low, COLUMNS).fill_(value)

    optim = {f"centres.weight/{name}": make(place) for place, name in enumerate(OPTIM)}
    optim["centres.weight/step"] = torch.tensor(1.0)
    weights, average = {"centres.weight": make(3.0)}, {"centres.weight": make(4.0)}
    return PlayerState(weights, optim, average, {"centres.weight": rows})


def save_gathered(folder: Path, state: Any, comm: Any, of: int) -> None:
    """Gather whole tensors on rank 0, and write them there."""
    import torch

    from hpc.checkpoints import store
    from hpc.checkpoints.store import Checkpoint

    whole = Checkpoint(2, 1, {"net": {}}, {"net": {}}, {"net": {}})
    for name, tensors in (("players", state.weights), ("optim", state.optim), ("ema", state.ema)):
        for key, tensor in tensors.items():
            if comm.main and tensor.dim():
                full = getattr(whole, name)["net"][key] = torch.empty(of, COLUMNS)
                full[: len(tensor)] = tensor
                for rank in range(1, comm.world):
                    low, high = of * rank // comm.world, of * (rank + 1) // comm.world
                    torch.distributed.recv(full[low:high], src=rank)
            elif tensor.dim():
                torch.distributed.send(tensor, dst=0)
    if comm.main:
        store.save(folder, whole)


def save_aside(folder: Path, state: Any, comm: Any) -> None:
    """Save a copy in a thread, and wait for it."""
    from hpc.checkpoints import store
    from hpc.checkpoints.async_writer import AsyncCheckpointWriter

    writer = AsyncCheckpointWriter(
        lambda taken: store.save(folder, taken, comm=comm) and None, background=True
    )
    if error := writer.save(state) or writer.wait():
        sys.exit(error)


def write(rank: int, world: int, folder: str, of: int) -> dict[str, Any]:
    """Save in each way on one rank."""
    from functools import partial

    import torch

    from hpc.checkpoints import store
    from hpc.checkpoints.store import Checkpoint
    from hpc.distributed import collectives
    from hpc.distributed.comm import connect, disconnect, with_own_group
    from hpc.engines.sharded import rows_of

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    comm = connect(Path(folder), timeout=600, device="cpu")
    writers = with_own_group(comm, timeout=600)

    def checkpoint(clock: int, state: Any) -> Checkpoint:
        whole = Checkpoint(clock, 1)
        whole.put("net", state)
        return whole if comm.main else whole.only_pieces()

    run = Path(folder) / "run"
    # What only the first save pays.
    store.save(run, checkpoint(0, state_of(rows_of(world, comm))), comm=writers)
    before = resident()
    state = state_of(rows_of(of, comm))
    found: dict[str, Any] = {"share": resident() - before}
    collectives.gather_vector([0.0], comm)
    found["pieces"] = rise(lambda: store.save(run, checkpoint(1, state), comm=writers))
    found["asynchronous"] = rise(lambda: save_aside(run, checkpoint(3, state), writers))
    collectives.gather_vector([0.0], comm)
    found["gathered"] = rise(partial(save_gathered, run, state, comm, of))
    disconnect()
    return found


def read(rank: int, world: int, folder: str, of: int) -> dict[str, Any]:
    """Read this rank's rows of what the writers left."""
    import torch

    from hpc.checkpoints import store
    from hpc.distributed.comm import Comm
    from hpc.engines.sharded import rows_of

    torch.set_num_threads(1)
    run, comm, kept = Path(folder) / "run", Comm(rank=rank, world=world), []
    store.read(store.listing(run)[0], verified=True, comm=comm)
    rows = rows_of(of, comm)
    path = next(path for path in store.listing(run) if int(path.name) == 3)
    found = rise(lambda: kept.append(store.read(path, verified=True, comm=comm)))
    assert kept[0].ema["net"]["centres.weight"].shape == (rows.high - rows.low, COLUMNS)
    assert bool((kept[0].ema["net"]["centres.weight"] == 4.0).all())
    return {"share": (rows.high - rows.low) * COLUMNS * 4 * 4, "read": found}


def ranks(function: Callable[..., dict], world: int, folder: str, of: int) -> list[dict[str, Any]]:
    """Run `function` in fresh processes; return what it measured, by rank."""
    with multiprocessing.get_context("spawn").Pool(world) as pool:
        return pool.starmap(function, [(rank, world, folder, of) for rank in range(world)], chunksize=1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--work", default=None, help="folder on the disk to be used")
    options = parser.parse_args()
    os.environ.pop("MASTER_ADDR", None)
    of = round(options.gigabytes * 1e9 / (4 * 4 * COLUMNS))
    rows: list[tuple[str, float, float, float]] = []  # what, share, rise of the worst rank, its seconds
    for world in (2, 4):
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            found = ranks(write, world, folder, of)
            share = max(rank["share"] for rank in found)
            for way in WAYS:
                worst = max((rank[way] for rank in found), key=lambda entry: entry["bytes"])
                rows.append((f"{world} ranks write, {way}", share, worst["bytes"], worst["s"]))
            if world == 4:
                found = ranks(read, READERS, folder, of)
                worst = max((rank["read"] for rank in found), key=lambda entry: entry["bytes"])
                rows.append((f"{READERS} ranks read", found[0]["share"], worst["bytes"], worst["s"]))
            shutil.rmtree(Path(folder) / "run", ignore_errors=True)
    print(f"| {f'{options.gigabytes:g} GB':<32} | share, MB | rise, MB | seconds |")
    print(f"|{'-' * 34}|{'-' * 11}|{'-' * 10}|{'-' * 9}|")
    for what, share, most, seconds in rows:
        print(f"| {what:<32} | {share / 1e6:9.0f} | {most / 1e6:8.0f} | {seconds:7.2f} |")
    missed = [what for what, _, most, _ in rows if what.endswith("pieces") and most > BUFFER]
    missed += [what for what, share, most, _ in rows if "asynchronous" in what and most > share + BUFFER]
    print(
        f"bars: a save of pieces adds < {BUFFER / 1e6:g} MB, an asynchronous one < its share more: ", end=""
    )
    print(f"missed by {', '.join(missed)}" if missed else "met")
    print(json.dumps({"bench": "shards", "gigabytes": options.gigabytes, "rows": rows, "missed": missed}))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
