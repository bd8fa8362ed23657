"""What a run is, in a table: its task says what it predicts, and how it is judged. `rostro info RUN`."""

from hpc.checkpoints import store
from hpc.checkpoints.manifest import metric_of
from hpc.config.types import shown
from hpc.runs.run_dir import RunDir
from hpc.task import build_task
from hpc.training import seeding


def facts(run: RunDir) -> list[tuple[str, str]]:
    """Return the rows of the table. Raises UserError for a run that is damaged."""
    config = run.config()
    task = build_task(config)
    with seeding.seeded(config.seed):
        nets = task.players()
    keys = " ".join(f"{key}={shown(value)}" for key, value in config.task.items() if key != "name")
    rows = [("task", f"{config.task['name']} {keys}".strip())]
    for name, net in nets.items():
        count = sum(p.numel() for p in net.parameters())
        rows.append((f"player {name}", f"{type(net).__name__}, {count:,} parameters"))
    rows.append(("labels", ", ".join(task.plan.fields("train")) or "none"))
    for name, make in task.judged_by.items():
        each = make()
        words = ", ".join(f"{word}=" for word in each.KEYS)
        rows.append((f"evaluator {name}", type(each).__name__ + (f": {words}" if words else "")))
    rows.append(("best by", f"{task.metric[0]}, {task.metric[1]}"))
    for path, content in store.readable(run.path):
        value = metric_of(content.get("metrics", {}), task.metric[0])
        figure = "" if value is None else f", {task.metric[0]} {value:.4g}"
        rows.append(("checkpoint", f"{int(path.name):,} images{figure}"))
    scorer = task.scorer(nets)
    rows.append(("compares embeddings", "no" if scorer is None else f"yes, by {task.unit}"))
    reports = sorted(path.parent.name for path in run.path.glob("evaluations/*/report.json"))
    rows.append(("reports", ", ".join(reports) or "none: rostro evaluate makes one"))
    return rows
