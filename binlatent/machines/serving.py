"""How fast a trained model answers: images a second against the batch, and how long the first image takes.

    python -m binlatent.machines.serving runs/digits --batches 1,4,16,64

The first image is timed in processes of their own, from the start of Python: without anything compiled, then with what JAX
has stored in its compilation cache on disk.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

from binlatent.console import numbers, script
from binlatent.pipeline import Pipeline

FIRST = """
import sys, binlatent
model = binlatent.load(sys.argv[1], batch_size=1)
model.sample(num=1, steps=int(sys.argv[2]))
"""


def throughput(workdir: str, batch: int, steps: int, seconds: float) -> tuple[float, float]:
    """(images a second, seconds of a call) of a compiled sampler at a batch size."""
    model = Pipeline.load(workdir, batch_size=batch)
    model.sample(num=batch, steps=steps)
    calls, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        model.sample(num=batch, steps=steps, seed=calls)
        calls += 1
    elapsed = time.perf_counter() - begun
    return calls * batch / elapsed, elapsed / calls


def first_image(workdir: str, steps: int, cache: str | None) -> float:
    """Seconds from the start of a process to its first image."""
    stored = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    begun = time.perf_counter()
    command = [sys.executable, "-c", FIRST, workdir, str(steps)]
    subprocess.run(command, check=True, env=os.environ | (stored if cache else {}))
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--batches", type=numbers, default="1,4,16,64")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    print("| batch | images/s | ms a call |\n|---:|---:|---:|")
    for batch in args.batches:
        rate, call = throughput(args.workdir, batch, args.steps, args.seconds)
        print(f"| {batch} | {rate:.0f} | {1000 * call:.1f} |", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        first_image(args.workdir, args.steps, cache)  # fills the cache
        print("\n| first image of a process | s |\n|---|---:|")
        print(f"| nothing compiled | {first_image(args.workdir, args.steps, None):.1f} |", flush=True)
        print(f"| compilation cache on disk | {first_image(args.workdir, args.steps, cache):.1f} |", flush=True)


if __name__ == "__main__":
    script(main)
