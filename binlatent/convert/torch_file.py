"""Reads PyTorch checkpoints without PyTorch, and without executing their contents.

`torch.save` writes a pickle that refers to raw storages: since PyTorch 1.6 in a zip archive, before that in a single
file, one after another. A pickle may call any function by name; this reader accepts only the few names that a state dict
of tensors needs, so nothing in a file can be executed. Storages are checked against the pickle's description, so a damaged
file is an error and never gives wrong numbers.
"""

import io
import math
import os
import pickle
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from binlatent.errors import UserError

DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class _Refused(Exception):
    """The file is readable, but needs something that this reader does not support."""


class _Tensor(NamedTuple):
    """A tensor as described by the pickle: a strided view of a storage, which may not have been read yet."""

    storage: tuple[str, np.dtype, int]  # key, type, number of elements
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Knows ordered dicts, storages and tensors. Its classes and functions are created anew for each file, so that a
    pickle that sets attributes on them changes nothing else."""

    def __init__(self, file: io.BufferedIOBase):
        super().__init__(file, encoding="utf-8")

        class Dict(dict):
            pass  # a Python class, because state dicts have an attribute `_metadata`

        def rebuild_tensor(storage, offset, shape, strides, *_requires_grad_and_hooks):
            return _tensor(storage, offset, shape, strides)

        def rebuild_parameter(tensor, *_requires_grad_and_hooks):
            return tensor

        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): Dict,
            ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
            ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return name
        if (module, name) in self._known:
            return self._known[module, name]
        raise _Refused(
            f"it loads {module}.{name}, which is not part of a state dict of tensors and could run code. Save "
            "`model.state_dict()` alone and convert that file"
        )

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype, int]:
        kind, storage, key, _device, count, *view = pid
        if kind != "storage" or storage not in DTYPES:
            raise _Refused(f"it refers to an object of kind {kind!r} and type {storage!r}; storages are expected")
        if any(part is not None for part in view):
            raise _Refused("it contains views of storages, which PyTorch has not written since version 0.4")
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"a storage of {count!r} elements")
        return str(key), DTYPES[storage], count


def _tensor(storage, offset, shape, strides) -> _Tensor:
    """Creates a tensor; raises ValueError if it exceeds its storage."""
    _key, _dtype, count = storage
    shape, strides = tuple(shape), tuple(strides)
    if len(shape) != len(strides) or not all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *strides)):
        raise ValueError(f"a tensor of shape {shape} with strides {strides} at {offset}")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > count or (math.prod(shape) and last >= count):
        raise ValueError(f"a tensor of shape {shape} with strides {strides} at {offset} in a storage of {count}")
    return _Tensor(storage, offset, shape, strides)


def read_state(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """`read_torch_file`, without the prefix `module.` that data-parallel training adds to every name."""
    tensors = read_torch_file(path)
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): array for name, array in tensors.items()}
    return tensors


def read_torch_file(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict saved by `torch.save`, by name, in the file's order.

    Reads both the zip format and the older one. Types are kept; bfloat16 is `ml_dtypes.bfloat16`.

    Raises:
      UserError: the file is missing, not a checkpoint, damaged or truncated; or it contains something other than named
        tensors, which could execute code.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            content, load = _open_zip(file) if start == b"PK\x03\x04" else _open_legacy(file)
            return _arrays(content, load)
    except _Refused as error:
        raise UserError(f"{path} is refused: {error}") from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"cannot read {path}: {error.strerror}; a checkpoint file is expected") from error
    except Exception as error:  # a damaged pickle may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} is not a PyTorch checkpoint, or is damaged or truncated ({reason}); download or copy it again"
        ) from error


def _open_zip(file: io.BufferedIOBase) -> tuple[Any, Callable[[str, int], bytes]]:
    archive = zipfile.ZipFile(file)
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("a zip archive without data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise _Refused("it was saved on a big-endian machine")

    def load(key: str, size: int) -> bytes:
        entry = archive.getinfo(f"{root}data/{key}")
        if entry.file_size != size:
            raise ValueError(f"storage {key} has {entry.file_size} bytes; {size} are expected")
        return archive.read(entry)  # checks the entry's CRC

    return _Unpickler(io.BytesIO(archive.read(pickles[0]))).load(), load


def _open_legacy(file: io.BufferedIOBase) -> tuple[Any, Callable[[str, int], bytes]]:
    if _Unpickler(file).load() != LEGACY_MAGIC:
        raise ValueError("no magic number")
    protocol, system = _Unpickler(file).load(), _Unpickler(file).load()
    if protocol != 1001 or not system["little_endian"]:
        raise _Refused(f"it has protocol {protocol} of system {system}; protocol 1001, little-endian, is expected")
    content = _Unpickler(file).load()
    keys = _Unpickler(file).load()
    sizes = {tensor.storage[0]: tensor.storage[1].itemsize for tensor in _tensors(content).values()}
    data = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        # without a tensor that refers to it, the size of a storage is unknown
        if key not in sizes:
            raise ValueError(f"storage {key} belongs to no tensor")
        data[key] = file.read(count * sizes[key])

    def load(key: str, size: int) -> bytes:
        if len(data[key]) != size:
            raise ValueError(f"storage {key} has {len(data[key])} bytes; {size} are expected")
        return data[key]

    return content, load


def _tensors(content: Any) -> dict[str, _Tensor]:
    if not isinstance(content, dict) or not content:
        raise _Refused(f"it contains a {type(content).__name__}, not a state dict of named tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise _Refused(
                f"its entry {name!r} is a {type(value).__name__}, but a tensor is expected; if the weights are inside, "
                "save that entry alone"
            )
    return content


def _arrays(content: Any, load: Callable[[str, int], bytes]) -> dict[str, np.ndarray]:
    storages: dict[str, np.ndarray] = {}
    arrays = {}
    for name, tensor in _tensors(content).items():
        key, dtype, count = tensor.storage
        if key not in storages:
            storages[key] = np.frombuffer(load(key, count * dtype.itemsize), dtype)
        elif storages[key].dtype != dtype:
            raise ValueError(f"storage {key} has two types")
        arrays[name] = np.lib.stride_tricks.as_strided(
            storages[key][tensor.offset :],
            tensor.shape,
            tuple(stride * dtype.itemsize for stride in tensor.strides),
            writeable=False,
        )
    return arrays
