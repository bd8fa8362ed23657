"""The stages of a run that grows, as the table of a dry run: images, batch, memory, time, allocations."""

from collections.abc import Sequence

from hpc.config.sizes import micro_batches
from hpc.config.stages import lengths
from launch.start import forecast
from launch.start.plan import RunPlan
from launch.terminal import Column, duration, table, width

TWINS = (64, 256)  # pixels
TITLES = ("pixels", "images", "until", "fade", "batch", "a rank", "MB", "images/s", "time", "allocations")


def lines(plan: RunPlan, memory: Sequence[float]) -> list[str]:
    """Return the lines of the table; memory: bytes of a rank in each stage (empty = not known).

    Time and allocations are empty where no rate is known, allocations also where no queue gives the time.
    """
    config, stages = plan.config, plan.sizes.stages
    rates, spans = forecast.stage_rates(plan), lengths(stages, plan.config.images)
    useful = forecast.useful_seconds(config) if config.cluster.name == "slurm" else 0.0
    rows = []
    for number, (stage, span, rate) in enumerate(zip(stages, spans, rates, strict=True)):
        seconds = span / rate.images_per_s if rate else None
        rows.append(
            [
                str(stage.size),
                f"{span:,}",
                f"{stage.clock + span:,}",
                f"{stage.fade:,}" if stage.fade else "",
                str(stage.batch),
                micro_text(micro_batches(config, stage)),
                f"{memory[number] / 1e6:,.0f}" if memory else "",
                forecast.shown(rate) if rate else "",
                duration(seconds),
                f"{seconds / useful:.2f}" if seconds is not None and useful else "",
            ]
        )
    rows.append(_sum(plan, rows, useful))
    cells = zip(*rows, strict=True)
    columns = [Column(title, column, right=True) for title, column in zip(TITLES, cells, strict=True)]
    return table(columns, max(width(), sum(column.width + 2 for column in columns)))


def _sum(plan: RunPlan, rows: Sequence[Sequence[str]], useful: float) -> list[str]:
    """Return the last row: the whole run."""
    whole = forecast.rate(plan)
    seconds = plan.config.images / whole.images_per_s if whole else None
    known = {
        "pixels": "run",
        "images": f"{plan.config.images:,}",
        "MB": max(
            (row[TITLES.index("MB")] for row in rows), key=lambda text: int(text.replace(",", "") or 0)
        ),
        "images/s": forecast.shown(whole) if whole else "",
        "time": duration(seconds),
        "allocations": f"{seconds / useful:.2f}" if seconds is not None and useful else "",
    }
    return [known.get(title, "") for title in TITLES]


def notes(plan: RunPlan) -> list[str]:
    """Return what the table leaves out: resets, and where its rates come from."""
    stages = plan.sizes.stages
    found = []
    if any(stage.reset_moments for stage in stages):
        found.append("the optimizers forget their moments where a level begins")
    rates = [rate for rate in forecast.stage_rates(plan) if rate]
    found += [f"rates: {source}" for source in dict.fromkeys(rate.source for rate in rates)]
    found += _twins(plan)
    if len(rates) < len(stages):
        found.append("rates that are missing are not known here: a run that reaches a level measures it")
    return found


def _twins(plan: RunPlan) -> list[str]:
    """Say where low levels decode large images, though twins of the set would be read faster."""
    train, first = plan.sets.get("train"), plan.sizes.stages[0].size
    if (
        plan.config.data.twins
        or train is None
        or not len(train)
        or int(train.height[0]) < max(4 * first, TWINS[-1])
    ):
        return []
    made = [twin["size"] for twin in train.manifest.get("twins", [])]
    typed = f"data.twins=[{','.join(map(str, made or TWINS))}]"
    how = "the set has twins" if made else f"`rostro twins {train.folder} sizes=...` makes twins"
    return [f"low levels decode whole images: {how}, which are read faster: type {typed}"]


def micro_text(micro: Sequence[int]) -> str:
    """Return the micro batches as `2 x 16 + 8` or `40 x 16`."""
    first, last, count = micro[0], micro[-1], len(micro)
    if count == 1:
        return str(first)
    return f"{count} x {first}" if first == last else f"{count - 1} x {first} + {last}"
