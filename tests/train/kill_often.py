"""Kills a run at random times, repeatedly, during both stages; it must end bit-equal to an uninterrupted run.

    python -m tests.train.kill_often --kills 20 --folder /tmp/kill_often

It takes some minutes, so it is a script rather than a test; `tests/train/test_loop.py` kills each stage once.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from binlatent.checkpoint import checkpoint_steps
from binlatent.data.manifest import Manifest
from tests import tiny

STEPS = 30
CONFIG = f"""
from tests import tiny

def get_config():
    c = tiny.config({{path!r}})
    for training in (c.autoencoder_training, c.prior_training):
        training.update(num_steps={STEPS}, log_every=1, checkpoint_every=2, evaluate_every={STEPS})
    return c
"""


def start(folder: Path, workdir: Path) -> subprocess.Popen:
    """Starts the command line in a process; compiled programs are cached, so that restarts are quick."""
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [
        sys.executable,
        "-m",
        "binlatent.cli.main",
        "run",
        "--config",
        folder / "config.py",
        "--workdir",
        workdir,
    ]
    log = (folder / f"{workdir.name}.log").open("a")
    return subprocess.Popen([*map(str, command)], env=env, stdout=log, stderr=log)


def state(folder: Path) -> list[np.ndarray]:
    """Every array of the last checkpoint."""
    import orbax.checkpoint as ocp

    path = folder / "checkpoints" / str(checkpoint_steps(folder / "checkpoints")[-1]) / "state"
    with ocp.PyTreeCheckpointer() as reader:
        tree = dict(reader.metadata(path).item_metadata.tree)
        args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return jax.tree.leaves(reader.restore(path, restore_args=args))


def differences(a: Path, b: Path) -> list[str]:
    """The differences between two finished work directories."""
    found = []
    for stage in ("autoencoder", "prior"):
        pairs = list(zip(state(a / stage), state(b / stage), strict=True))
        wrong = sum(not np.array_equal(x, y) for x, y in pairs)
        print(f"{stage}: {len(pairs) - wrong} of {len(pairs)} arrays of step {STEPS} are bit-equal")
        found += [stage] * bool(wrong)
    shards = [{k: [s.records.sha256 for s in v] for k, v in Manifest.load(w / "codes").shards.items()} for w in (a, b)]
    return found + ["codes"] * (shards[0] != shards[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "config.py").write_text(CONFIG.format(path=tiny.npz(args.folder)))

    assert start(args.folder, args.folder / "alone").wait() == 0, "the run that is left alone failed"
    began = time.monotonic()
    assert start(args.folder, args.folder / "alone").wait() == 0
    startup = time.monotonic() - began
    began = time.monotonic()
    assert start(args.folder, args.folder / "again").wait() == 0  # with what is compiled
    whole = time.monotonic() - began
    print(f"alone: {whole:.0f} s, of which {startup:.0f} s to start and see that all is done", flush=True)
    if wrong := differences(args.folder / "alone", args.folder / "again"):
        sys.exit(f"two runs that were left alone differ: {', '.join(wrong)}")

    draw, kills, rounds, wrong = random.Random(args.seed), 0, 0, []
    while kills < args.kills and not wrong:  # a run may end before it was killed often enough: then another one begins
        killed, ended = args.folder / f"killed{rounds}", False
        while kills < args.kills and not ended:
            process = start(args.folder, killed)
            try:
                # from nothing at all to what a twentieth of the run takes beyond starting
                status = process.wait(draw.uniform(0, startup + 2.5 * whole / 20))
                ended = status == 0
                assert ended, f"a resumed run failed with status {status}: see {args.folder}/{killed.name}.log"
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                at = {s: max(checkpoint_steps(killed / s / "checkpoints"), default=0) for s in ("autoencoder", "prior")}
                print(f"kill {kills}: checkpoints {at}", flush=True)
        rounds += 1
        assert start(args.folder, killed).wait() == 0, f"the last run failed: see {args.folder}/{killed.name}.log"
        wrong = differences(args.folder / "alone", killed)
    if wrong:
        sys.exit(f"DIFFERENT from the run left alone: {', '.join(wrong)}")
    print(f"{kills} kills in {rounds} runs: all resumed and ended equal to the run left alone")


if __name__ == "__main__":
    main()
