"""What a compiled program needs of a device's memory, and what there is."""

import os
import pathlib

import jax

from binlatent.errors import UserError

# Where Linux keeps the limit of a container, in bytes: cgroup versions 2 and 1.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def planned_bytes(compiled: jax.stages.Compiled) -> int:
    """Bytes on one device, as XLA plans them: arguments, results and what is needed between."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def device_bytes() -> int | None:
    """Bytes that a device of this process has; of a CPU its share of the machine's. None where that is not known."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    try:
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (ValueError, OSError, AttributeError):  # not on this operating system
        return None
    for name in LIMITS:
        path = pathlib.Path(name)
        text = path.read_text().strip() if path.exists() else ""
        limits += [int(text)] if text.isdigit() else []
    return min(limits) // jax.local_device_count()


def check(name: str, compiled: jax.stages.Compiled) -> None:
    """Compares a stage's compiled training step with the memory of a device, before any is taken.

    Raises:
      UserError: it cannot fit.
    """
    if compiled.memory_analysis() is None:  # not every backend has it
        return
    needed, there = planned_bytes(compiled), device_bytes()
    if there is not None and needed > there:
        raise UserError(
            f"{name}: a training step needs {needed / 2**30:.1f} GiB on each device, which has {there / 2**30:.1f} GiB. A "
            f"smaller {name}_training.batch_size or more {name}_training.micro_batches needs less, and so does a narrower "
            "network or a smaller data.resolution; over several devices, mesh.fsdp divides the state."
        )
