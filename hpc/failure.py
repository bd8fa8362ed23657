"""How a run that fails says so: one line of the rank's own, kept in the run's status."""

import contextlib
import sys
import traceback
from collections.abc import Iterator

from hpc.dist import Dist
from hpc.errors import UserError
from hpc.rundir import RunDir


def lost_rank(error: BaseException, run: RunDir, here: Dist) -> str:
    """One line where `error` says that another rank died or went silent, else nothing."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError) or not ("gloo" in text or "NCCL" in text or "Timed out waiting" in text):
        return ""
    return (
        f"rank {here.rank} lost another rank ({text[:160]}): look for the first error in "
        f"{run.path}/logs, then `rostro resume {run.name}`"
    )


@contextlib.contextmanager
def recorded(run: RunDir, here: Dist) -> Iterator[None]:
    """Errors end the run with one line, which its status keeps."""
    try:
        yield
    except (UserError, RuntimeError, OSError) as error:
        lost = lost_rank(error, run, here)
        text = lost or " ".join(str(error).split())
        if not (lost or isinstance(error, UserError)):
            traceback.print_exc()
        print(f"error: {text}", file=sys.stderr, flush=True)
        if here.main:
            run.write_status(state="failed", message=text)
        raise SystemExit(1) from None
