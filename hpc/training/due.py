"""What is due at the end of an update, by the clock: the same on all ranks, and after a resume."""

from typing import NamedTuple

from hpc.config.schema import Config


class Due(NamedTuple):
    """What the trainer does after an update, in this order, besides what the evaluation calls for."""

    log: bool
    histograms: bool
    compare: bool  # the ranks' parameters
    evaluate: bool
    save: bool


def due_after(config: Config, before: int, clock: int, updates: int) -> Due:
    """Return what is due after the update that led from `before` to `clock`, the run's `updates`-th."""
    last = clock >= config.images
    return Due(
        log=_passed(config.log.every, before, clock) or last,
        histograms=_passed(config.log.histograms, before, clock),
        compare=config.desync_every > 0 and updates % config.desync_every == 0,
        evaluate=_passed(config.eval.every, before, clock) or last,
        save=_passed(config.save.every, before, clock) or last,
    )


def _passed(every: int, before: int, clock: int) -> bool:
    """Return whether a multiple of `every` images is in (before, clock] (0 = never)."""
    return every > 0 and clock // every > before // every
