"""`rostro convert`: a run directory of weights that were published elsewhere."""

import dataclasses
from pathlib import Path

from launch.options.key_value import parse
from launch.options.option import Option, option_lines

OPTIONS = {"out": Option("", "run directory to make", placeholder="RUN")}
KINDS = ("mesonet",)
PLACES = {"KIND": "mesonet: weights of Meso4 or MesoInception4", "FILE": "the Keras weights, HDF5 (.h5)"}
HELP = f"""
usage: rostro convert KIND FILE out=RUN

Makes a run of weights that were published elsewhere. `rostro predict`, `evaluate` and `export` take it as any
other, and `init.run=RUN` begins a training with it. Nothing in the file is executed. It needs h5py:
`pip install 'rostro[h5]'`.

{option_lines(OPTIONS, PLACES)}

example: rostro convert mesonet Meso4_DF.h5 out=runs/meso4-df
"""


def main(argv: list[str]) -> int:
    keys = parse(argv, OPTIONS, positional=("kind", "file"), required=("kind", "file", "out"))
    from data_shards.errors import UserError

    if keys.kind not in KINDS:
        raise UserError(f"kind={keys.kind} is not known: use {' or '.join(KINDS)}")
    out = Path(keys.out).expanduser().absolute()
    if out.exists():
        raise UserError(f"out={keys.out} exists: give another name, or delete it")
    run = _mesonet(Path(keys.file), out)
    print(f"{run}: try rostro predict {run} in=IMAGES out=FOLDER")
    return 0


def _mesonet(file: Path, out: Path) -> Path:
    """Make the run of a file of MesoNet's weights; return its folder."""
    from hpc.config.check import check
    from hpc.inference.convert_mesonet import SIZE, read_mesonet, save
    from launch.options.compose import composed
    from launch.start.create import make
    from launch.start.plan import RunPlan

    published = read_mesonet(file)
    words = [f"task.backbone={published.backbone}", "task.dropout=0.0", "ema.half_life=0", "precision=fp32"]
    config = composed(["task=deepfake", "cluster=local", *words])
    # The authors' images are squeezed to a square.
    data = dataclasses.replace(config.data, set="", size=SIZE, fit="stretch")
    config = dataclasses.replace(config, name=out.name, runs=str(out.parent), data=data)
    check(config)
    plan = RunPlan(config, ("mesonet", str(file), f"out={out}"), "deepfake", command=("convert",))
    return make(plan, fill=lambda draft: save(published, draft, config, source=file.name)).path
