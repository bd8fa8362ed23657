"""The labels of samples as columns of the index, checked against the fields of their source."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.shard_format.columns import RaggedColumn
from data_shards.shard_format.schema import Field, Schema
from data_shards.sources.base import Sample


def label_columns(
    schema: Schema, samples: Sequence[Sample]
) -> tuple[dict[str, np.ndarray], dict[str, RaggedColumn]]:
    """({field: [n, *shape]} of fixed size, {field: its column} of ragged ones) of the samples.

    Raises UserError, which names the first sample with a label that does not fit its field.
    """
    for sample in samples:
        if len(sample.labels) != len(schema.labels):
            raise UserError(
                f"labels={len(sample.labels)} of {sample.path}: the source declares {len(schema.labels)} "
                f"({', '.join(schema.labels) or 'none'}); give one for each"
            )
    columns, ragged = {}, {}
    for place, (name, field) in enumerate(schema.labels.items()):
        if field.ragged:
            ragged[name] = _ragged_column(name, field, samples, place)
        else:
            columns[name] = _column(name, field, samples, place)
    counts = {name: np.diff(np.asarray(column.start, np.int64)) for name, column in ragged.items()}
    number, fault = schema.miscount(counts)
    if fault:
        raise UserError(f"{fault} of {samples[number].path}: give one for each; correct the source")
    return columns, ragged


def _column(name: str, field: Field, samples: Sequence[Sample], place: int) -> np.ndarray:
    values = [sample.labels[place] for sample in samples]
    shape = (len(samples), *field.shape)
    if not values:
        return np.empty(shape, field.dtype)
    if _misfit(field, values, shape):  # find the sample
        for sample, value in zip(samples, values, strict=True):
            if reason := _misfit(field, [value], (1, *field.shape)):
                raise _refusal(name, value, sample, reason)
    return np.asarray(values, np.float64).astype(field.dtype)


def _ragged_column(name: str, field: Field, samples: Sequence[Sample], place: int) -> RaggedColumn:
    parts = [np.empty((0, *field.shape), field.dtype)]
    for sample in samples:
        value = sample.labels[place]
        if not hasattr(value, "__len__"):
            raise _refusal(name, value, sample, f"is not a list of arrays of shape {field.shape}")
        if len(value) and (reason := _misfit(field, value, (len(value), *field.shape))):
            raise _refusal(name, value, sample, reason)
        parts.append(np.asarray(value, np.float64).reshape(-1, *field.shape).astype(field.dtype))
    return RaggedColumn(np.cumsum([len(part) for part in parts]), np.concatenate(parts))


def _refusal(name: str, value: object, sample: Sample, reason: str) -> UserError:
    shown = " ".join(repr(value).split())
    return UserError(f"{name}={shown:.60} of {sample.path}: {reason}; correct the source")


def _misfit(field: Field, values: Any, shape: tuple[int, ...]) -> str:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return f"is not an array of numbers of shape {field.shape}"
    if array.shape != shape:
        kind = "is not a list of arrays of shape" if field.ragged else "does not have the shape"
        return f"{kind} {field.shape}"
    return field.misfit(array)
