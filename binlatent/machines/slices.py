"""Slices of TPUs that are not there: devices to compile for, from the TPU's compiler in `libtpu`."""

import dataclasses
import importlib.util
import math
import os
import re

import jax

from binlatent.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """A kind of TPU chip.

    Attributes:
      memory: bytes of HBM that its compiler lets a program have.
      accelerator: the type of a slice as `TPU_ACCELERATOR_TYPE` has it, with `{}` for its size.
      cores: what that size counts, per chip.
    """

    memory: int
    accelerator: str
    cores: int = 1


# HBM by the data sheets (cloud.google.com/tpu/docs/v5e, …/v5p, …/v6e) is 16, 95 and 32 GB; these are the limits that the
# compiler of libtpu 0.0.42.1 names when a program exceeds them.
CHIPS = {
    "v5e": Chip(memory=int(15.75 * 2**30), accelerator="v5litepod-{}"),
    "v5p": Chip(memory=int(95.74 * 2**30), accelerator="v5p-{}", cores=2),
    "v6e": Chip(memory=int(31.25 * 2**30), accelerator="v6e-{}"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A slice of TPUs that is not there: its name, kind of chip, and devices to compile for."""

    name: str
    chip: Chip
    devices: tuple


def open_slice(name: str) -> Slice:
    """A slice by name, such as `v5e:2x4`, with this process's settings for compiling without a TPU.

    Raises:
      UserError: the compiler is not installed, or there is no such slice.
    """
    kind, _, sides = name.partition(":")
    known = f"one of {', '.join(CHIPS)}, a colon and the sides of the slice are expected, as in v5e:2x4 or v5p:2x2x1"
    if kind not in CHIPS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", sides):
        raise UserError(f"there is no topology {name!r}: {known}")
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"topology {name}: the TPU's compiler is not installed: pip install -e '.[tpu]'")
    chip = CHIPS[kind]
    size = chip.cores * math.prod(map(int, sides.split("x")))
    settings = {
        "TPU_SKIP_MDS_QUERY": "1",  # no metadata server is asked
        "TPU_ACCELERATOR_TYPE": chip.accelerator.format(size),
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    for key, value in settings.items():
        os.environ.setdefault(key, value)
    from jax.experimental import topologies

    try:
        devices = topologies.get_topology_desc(name, platform="tpu").devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"there is no topology {name!r} ({error}): {known}") from error
    return Slice(name=name, chip=chip, devices=tuple(devices))
