"""The order that the keys under `data` select: its checks, its fields and its words. No torch, no numpy.

What it draws: `hpc/data/orders.py`.
"""

from data_shards.errors import UserError
from hpc.config.plan import Plan
from hpc.config.schema import Data
from hpc.config.types import shown

WHOLE = Data().rows
# data.order -> the key that only this order reads, and a value of it
READ_BY = {
    "weighted": ("weights", "quality"),
    "balanced": ("balance", "race"),
    "mixed": ("mix", "'race==0:0.3; race!=0:0.7'"),
}
OF_PAIRS = ("a", "b", "train_b")  # keys that only data.order=unpaired reads
SIDES = "data.a='gender==0' data.b='gender==1'"


def check_order(data: Data) -> None:
    """Raise UserError for keys of the order that contradict each other."""
    for kind, (name, example) in READ_BY.items():
        value = getattr(data, name)
        if data.order == kind and not value:
            raise UserError(f"data.order={kind} needs data.{name}: type for example data.{name}={example}")
        if value and data.order != kind:
            raise _belongs(data, name, kind)
    for name in OF_PAIRS:
        if getattr(data, name) and data.order != "unpaired":
            raise _belongs(data, name, "unpaired")
    if data.order == "unpaired" and data.a == data.b and not data.train_b:
        raise UserError(
            f"data.order=unpaired draws A and B from the same samples: type for example {SIDES}, or "
            "data.train_b=FOLDER"
        )
    if data.order in ("mixed", "unpaired") and data.rows != WHOLE:
        parts, keys = (
            ("the parts of data.mix",) * 2 if data.order == "mixed" else ("A and B", "data.a and data.b")
        )
        raise UserError(
            f"data.rows={data.rows}: {parts} choose rows themselves: leave data.rows out, use {keys}"
        )
    if data.members > 1 and data.order in ("groups", "unpaired"):
        raise UserError(
            f"data.members={data.members} does not go with data.order={data.order}, whose slots have "
            f"{'2 images' if data.order == 'unpaired' else '1 image'}: use data.members=1 or data.order=plain"
        )
    if data.halves and (data.members > 1 or data.order == "unpaired"):
        other = "data.order=unpaired" if data.order == "unpaired" else f"data.members={data.members}"
        raise UserError(
            f"data.halves=true makes A and B of each image, {other} takes several images: leave one of them "
            "out"
        )


def _belongs(data: Data, name: str, kind: str) -> UserError:
    return UserError(
        f"data.{name}={shown(getattr(data, name))} belongs to data.order={kind}, not to "
        f"data.order={data.order}: use data.order={kind}, or leave data.{name} out"
    )


def check_streamed(data: Data) -> None:
    """Raise UserError for what data.stream=true cannot give, which reads shards as they come."""
    if not data.stream:
        return
    if data.order not in ("plain", "groups"):
        raise UserError(
            f"data.order={data.order} needs the set's index, data.stream=true reads shards as they come: use "
            "data.order=plain or groups, or leave data.stream out"
        )
    for key, typed in (
        ("rows", data.rows != WHOLE),
        ("twins", bool(data.twins)),
        ("members", data.members > 1),
    ):
        if typed:
            raise UserError(
                f"data.{key}={shown(getattr(data, key))} needs the set's index, data.stream=true reads "
                "shards as they come: leave one of them out"
            )


def is_paired(data: Data) -> bool:
    """Return whether a batch has images `a` and `b`."""
    return data.halves or data.order == "unpaired"


def check_roles(data: Data, plan: Plan) -> None:
    """Raise UserError where the task takes pairs and the order gives single images, or the reverse."""
    wants = "a" in plan.roles or "b" in plan.roles
    if wants and not is_paired(data):
        raise UserError(
            f"data.order={data.order}: task={plan.name} takes pairs of images: use data.order=unpaired "
            f"{SIDES}, or data.halves=true"
        )
    if is_paired(data) and not wants:
        typed = "data.halves=true" if data.halves else "data.order=unpaired"
        raise UserError(f"{typed} gives pairs of images, task={plan.name} takes single ones: leave it out")


def fields_of_set(data: Data, plan: Plan, split: str) -> tuple[str, ...]:
    """Return the names of the labels of a split's set: one of pairs has those of the sides that it gives."""
    return tuple(dict.fromkeys(field.partition(":")[0] for field in stated_of_set(data, plan, split)))


def stated_of_set(data: Data, plan: Plan, split: str) -> tuple[str, ...]:
    """Return the labels that the set of a split must hold as the plan states them: `age` or `age:value`."""
    sides = {"train": ("a",) if data.train_b else ("a", "b"), "train_b": ("b",)}.get(split, ())
    own = () if split == "train_b" else plan.roles.get(split, ())
    return tuple(dict.fromkeys([*own, *(field for side in sides for field in plan.roles.get(side, ()))]))


def describe(data: Data) -> str:
    """Say in a few words which order the keys select, for plan and log."""
    texts = {
        "groups": f"groups of {data.group}",
        "weighted": f"weighted by {_listed(data.weights)}",
        "balanced": f"balanced over {data.balance}",
        "mixed": f"mixed {data.mix}",
        "unpaired": f"unpaired, a {_listed(data.a) or WHOLE}, b {_listed(data.b) or WHOLE}",
    }
    text = texts.get(data.order, data.order)
    if data.members > 1:
        text += f" of {data.members} images"
    return text if data.rows == WHOLE else f"{text}, rows {_listed(data.rows)}"


def _listed(value: str) -> str:
    """Return the value of a key; of a list of rows in a file, `@PATH#sha256`, without its hash."""
    return value.rpartition("#")[0] if value.startswith("@") and "#" in value else value
