"""Small files of this project, read with types and bounds and written in one step.

A file on disk is hostile input: it may be a FIFO, huge, not UTF-8, nested a thousand levels deep, or of types
that the code does not expect. `read_json` and `read_yaml` answer all of that with one `FileError`, which
names the file, what is wrong with it and what to do. `write_bytes` replaces a file by rename.
"""

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from data_shards.errors import UserError

SMALL = 16 << 20  # bytes; a file that describes a set or a run is never larger
BRACKETS = 1_000  # in YAML: the time to parse grows with the square of the nesting
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a group",
}
SEAL = "sha256"  # the entry of a sealed mapping that contains the hash of all others
Schema = Any  # see `conform`


class FileError(UserError):
    """A file that cannot be used: the message says which, what is wrong with it, and the remedy."""


class MissingFile(FileError):
    """A file that does not exist."""


def open_regular(path: Path | str, *, remedy: str = "restore it, or delete it") -> BufferedReader:
    """Open a regular file to read its bytes. It never waits on a FIFO.

    Raises MissingFile where the file does not exist, FileError for a folder, a FIFO, a device, or a file that
    this user may not read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFile(f"{path} does not exist: {remedy}") from None
    except (OSError, ValueError) as error:  # ValueError: a name that contains a zero byte
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"{path} cannot be read ({reason}): {remedy}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileError(f"{path} is not a regular file: {remedy}")
    return os.fdopen(handle, "rb")


def read_bytes(path: Path | str, *, limit: int = SMALL, remedy: str = "restore it, or delete it") -> bytes:
    """The content of a regular file. Raises as `open_regular`, and FileError for more than `limit` bytes."""
    with open_regular(path, remedy=remedy) as stream:
        try:
            data = b"".join(_blocks(stream, limit))
        except OSError as error:
            raise FileError(f"{path} cannot be read ({error.strerror}): {remedy}") from None
    if len(data) > limit:
        raise FileError(f"{path} has more than {limit:,} bytes: {remedy}")
    return data


def _blocks(stream: BinaryIO, limit: int) -> Iterator[bytes]:
    """The blocks of a file until they exceed `limit`: a single read of `limit` would allocate all of it."""
    while limit >= 0 and (block := stream.read(1 << 20)):
        limit -= len(block)
        yield block


def read_text(path: Path | str, *, limit: int = SMALL, remedy: str = "restore it, or delete it") -> str:
    """The content of a file as UTF-8 text. Raises as `read_bytes`, and FileError for other text."""
    data = read_bytes(path, limit=limit, remedy=remedy)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not UTF-8 text (byte {error.start}): {remedy}") from None


def read_json(
    path: Path | str, schema: Schema = dict, *, limit: int = SMALL, remedy: str = "restore it, or delete it"
) -> Any:
    """The value in a JSON file; `schema`: its shape, see `conform`. Raises as `read_bytes`, `parse_json`."""
    return parse_json(read_bytes(path, limit=limit, remedy=remedy), schema, what=str(path), remedy=remedy)


def parse_json(
    data: bytes | str, schema: Schema = dict, *, what: str, remedy: str = "restore it, or delete it"
) -> Any:
    """`data` as JSON of the shape of `schema`, else FileError. `what`: what its message calls the file."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise FileError(f"{what} is nested too deeply: {remedy}") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, a number of 5,000 digits
        raise FileError(f"{what} is not JSON ({error}): {remedy}") from None
    return _conforming(value, schema, what, remedy)


def read_yaml(
    path: Path | str, schema: Schema = dict, *, limit: int = SMALL, remedy: str = "restore it, or delete it"
) -> Any:
    """The value in a YAML file with the schema, as in `read_json`; an empty file is an empty mapping."""
    text = read_text(path, limit=limit, remedy=remedy)
    if text.count("[") + text.count("{") > BRACKETS:
        raise FileError(f"{path} has more than {BRACKETS:,} brackets: {remedy}")
    try:
        value = yaml.load(text, _Loader)  # a SafeLoader
    except RecursionError:
        raise FileError(f"{path} is nested too deeply: {remedy}") from None
    # Besides YAMLError: what `? {}` as a key and impossible dates make the loader raise.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise FileError(f"{path} is not YAML ({' '.join(str(error).split())}): {remedy}") from None
    return _conforming({} if value is None else value, schema, str(path), remedy)


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which let a few lines stand for billions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias in line {self.peek_event().start_mark.line + 1}")
        return super().compose_node(parent, index)


def conform(value: Any, schema: Schema) -> str:
    """Why `value` does not have the shape of `schema`, in words ("" = it does).

    A schema is a type (`int` is not a bool, `float` takes whole numbers and is finite), a range of whole
    numbers, `object` for anything, None, a tuple of alternatives, `[schema]` for a list, `{str: schema}` for
    a mapping with any names, or `{"name": schema, "other?": schema}`, a mapping with these entries (`?`: it
    may be absent) and perhaps more.
    """
    return _conform(value, schema, "")


def _conform(value: Any, schema: Schema, where: str) -> str:
    at = f"{where}: " if where else ""
    if schema is object:
        return ""
    if schema is None:
        return "" if value is None else f"{at}{_short(value)} is not null"
    if isinstance(schema, range):
        fits = type(value) is int and value in schema
        return "" if fits else f"{at}{_short(value)} is not a whole number of {schema[0]} to {schema[-1]}"
    if isinstance(schema, type):
        return (
            "" if _is(value, schema) else f"{at}{_short(value)} is not {KINDS.get(schema, schema.__name__)}"
        )
    if isinstance(schema, tuple):
        faults = [_conform(value, option, where) for option in schema]
        return "" if "" in faults else faults[0]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return f"{at}{_short(value)} is not a list"
        item_faults = (_conform(item, schema[0], f"{where}[{place}]") for place, item in enumerate(value))
        return next((fault for fault in item_faults if fault), "")
    if not isinstance(value, dict):
        return f"{at}{_short(value)} is not a group of entries"
    return _conform_entries(value, schema, where)


def _conform_entries(value: dict, schema: Mapping[Any, Schema], where: str) -> str:
    prefix = f"{where}." if where else ""
    if str in schema:
        for name, item in value.items():
            if not isinstance(name, str):
                return f"{prefix}{_short(name)} is not a name"
            if fault := _conform(item, schema[str], f"{prefix}{name}"):
                return fault
        return ""
    for key, entry in schema.items():
        name = key.removesuffix("?")
        if name in value:
            if fault := _conform(value[name], entry, f"{prefix}{name}"):
                return fault
        elif not key.endswith("?"):
            return f"it has no {prefix}{name}"
    return ""


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is bool if kind is bool else isinstance(value, kind) and type(value) is not bool


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _conforming(value: Any, schema: Schema, what: str, remedy: str) -> Any:
    try:
        fault = conform(value, schema)
    except RecursionError:
        fault = "it is nested too deeply"
    if fault:
        raise FileError(f"{what}: {fault}: {remedy}")
    return value


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return `value` after a round trip through JSON, with the hash of all its entries as the entry SEAL."""
    plain = json.loads(json.dumps({key: item for key, item in value.items() if key != SEAL}))
    return {**plain, SEAL: _fingerprint(plain)}


def is_sealed(value: Mapping[str, Any]) -> bool:
    """Whether `value` has the hash that `seal` adds, and it is that of all other entries."""
    try:
        return value.get(SEAL) == _fingerprint({key: item for key, item in value.items() if key != SEAL})
    except RecursionError:
        return False


def _fingerprint(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_bytes(path: Path | str, data: bytes, *, durable: bool = False) -> None:
    """Replace `path` in one step: a reader sees the old content or the new, never a part.

    `durable`: it is on disk when this returns. Raises OSError, as on a full disk, and leaves the old content.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_json(path: Path | str, value: Any, *, durable: bool = False, allow_nan: bool = False) -> None:
    """Replace `path` by `value` as indented JSON. Raises ValueError for NaN unless `allow_nan`."""
    write_bytes(path, json.dumps(value, indent=1, allow_nan=allow_nan).encode() + b"\n", durable=durable)


TEMPORARY = ".tmp-"  # a file whose name starts with it is unfinished


@contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """A file to write, of which a crash leaves all or nothing; it is on disk when the block ends."""
    with renamed(path) as file:
        yield file
    sync_path(path.parent)


@contextmanager
def renamed(path: Path) -> Iterator[BinaryIO]:
    """A file as from `durable`, for many files of a folder: the caller syncs the folder once, at the end."""
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    with open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def sync_path(path: Path) -> None:
    """Make what was written to a closed file (or renamed in a folder) survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_entry(path: Path, *, name: str) -> dict[str, Any]:
    """The entry of a file in the manifest: {name, bytes, sha256}."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": name, "bytes": os.path.getsize(path), "sha256": digest}
