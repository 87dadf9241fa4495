"""The speed of a run: operations per step, peak operations of devices, rates over a window of steps, memory."""

import math
import re
import time
from collections.abc import Callable

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters.partial_eval import dce_jaxpr

# Dense bfloat16 operations per second of one JAX device (a core of TPU v2 and v3, otherwise a chip), from the vendors'
# data sheets, by prefix of `device_kind`; the longest matching prefix is used.
PEAK_FLOPS = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,  # half a chip: JAX has a device for each of its two dies
    "NVIDIA A10G": 70e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA GH200": 989.4e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
}


def peak_flops(kind: str) -> float | None:
    """Dense bfloat16 operations per second of a device, by its `device_kind`; None if unknown."""
    known = [name for name in PEAK_FLOPS if re.match(rf"{re.escape(name)}\b", kind)]
    return PEAK_FLOPS[max(known, key=len)] if known else None


def count_flops(function: Callable, *args) -> int:
    """Operations of a function's matrix products and convolutions; a multiplication and an addition are two.

    Counted from its jaxpr, because XLA's count has the body of a loop only once. A loop of unknown length counts once, a
    conditional as its most expensive branch. Zeros inserted by transposed convolutions do not count, nor does what no result
    needs, which XLA removes.

    Args:
      *args: arrays or their shapes.
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    return _flops(dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def _flops(jaxpr: Jaxpr) -> int:
    return sum(_equation_flops(eqn) for eqn in jaxpr.eqns)


def _equation_flops(eqn) -> int:
    name, out = eqn.primitive.name, eqn.outvars[0].aval if eqn.outvars else None
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * out.size * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec
        products = out.size * math.prod(kernel) // kernel[numbers[0]]
        return 2 * products // math.prod(eqn.params["lhs_dilation"])
    if name.startswith(("dot_product_attention_fwd", "dot_product_attention_bwd")):  # cuDNN's; (b, l, heads, d)
        query, key = (eqn.invars[i].aval for i in range(2))
        return (4 if "_fwd" in name else 8) * query.size * key.shape[1]
    inner = [_flops(j.jaxpr if isinstance(j, ClosedJaxpr) else j) for j in _inner(eqn.params)]
    if name == "cond":
        return max(inner)
    return sum(inner) * (eqn.params["length"] if name == "scan" else 1)


def _inner(params: dict):
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr | Jaxpr):
                yield item


def peak_memory() -> int | None:
    """Peak memory in bytes of this process's fullest device; None if the backend does not report it (CPU)."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
    return max(peaks, default=None)


class Window:
    """Training metrics and rates since the last record, without the time of evaluation and saving.

    Args:
      batch_size: examples per step.
    """

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._reset()

    def _reset(self) -> None:
        self._values = []
        self.pause()

    def pause(self) -> None:
        """Restarts the clock of this window, because the time up to now was not spent on steps."""
        self._started, self.waited, self._ran = time.perf_counter(), 0.0, 0

    def ran(self, steps: int) -> None:
        """Counts the steps of a call that has ended; their metrics are added after it."""
        self._ran += steps

    def add(self, values: dict[str, float]) -> None:
        self._values.append(values)

    def flush(self, flops: int | None = None) -> dict[str, float]:
        """Means of the metrics, `seconds_per_step`, `examples_per_second` and `input_wait` (the fraction of time spent
        waiting for data); where known, `mfu` (model FLOPs utilisation) and `peak_memory_gib` of a device. Without rates where
        no call has ended since the last record.

        Args:
          flops: operations of a step, over all devices; None for no `mfu`.
        """
        seconds = (time.perf_counter() - self._started) / max(self._ran, 1)
        record = {}
        for name in self._values[0]:
            # a skipped step must not turn the mean into NaN
            values = [v[name] for v in self._values if math.isfinite(v[name])]
            record[name] = sum(values) / len(values) if values else math.nan
        if self._ran:
            record |= {
                "seconds_per_step": seconds,
                "examples_per_second": self._batch_size / seconds,
                "input_wait": self.waited / self._ran / seconds,
            }
            if flops and (peak := peak_flops(jax.devices()[0].device_kind)):
                record["mfu"] = flops / (peak * jax.device_count()) / seconds
        if (memory := peak_memory()) is not None:
            record["peak_memory_gib"] = memory / 2**30
        self._reset()
        return record
