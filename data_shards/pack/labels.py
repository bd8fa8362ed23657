"""The labels of samples as columns of the index, checked against the fields of their source."""

from collections.abc import Sequence

import numpy as np

from data_shards.errors import UserError
from data_shards.shard_format.schema import Field, Schema
from data_shards.sources.base import Sample


def label_columns(schema: Schema, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """{field: [n, *shape]} of the samples.

    Raises UserError, which names the first sample with a label that does not fit its field.
    """
    for sample in samples:
        if len(sample.labels) != len(schema.fields):
            raise UserError(
                f"labels={len(sample.labels)} of {sample.path}: the source declares {len(schema.fields)} "
                f"({', '.join(schema.fields) or 'none'}); give one for each"
            )
    return {
        name: _column(name, field, samples, place)
        for place, (name, field) in enumerate(schema.fields.items())
    }


def _column(name: str, field: Field, samples: Sequence[Sample], place: int) -> np.ndarray:
    values = [sample.labels[place] for sample in samples]
    shape = (len(samples), *field.shape)
    if not values:
        return np.empty(shape, field.dtype)
    if _misfit(field, values, shape):  # find the sample
        for sample, value in zip(samples, values, strict=True):
            if reason := _misfit(field, [value], (1, *field.shape)):
                shown = " ".join(repr(value).split())
                raise UserError(f"{name}={shown:.60} of {sample.path}: {reason}; correct the source")
    return np.asarray(values, np.float64).astype(field.dtype)


def _misfit(field: Field, values: Sequence[object], shape: tuple[int, ...]) -> str:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return f"is not an array of numbers of shape {field.shape}"
    return field.misfit(array) if array.shape == shape else f"does not have the shape {field.shape}"
