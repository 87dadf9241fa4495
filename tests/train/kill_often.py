"""Interrupts a run at random times, repeatedly, during both stages; it must end bit-equal to an uninterrupted run.

    python -m tests.train.kill_often --kills 5 --processes 1 2 --steps_per_call 1 4 --folder /tmp/kill_often

interrupts 5 times by SIGKILL and 5 times by SIGTERM for each number of processes and of steps a call. That takes many
minutes, so it is a script rather than a test; `tests/train/test_loop.py` kills each stage once. The signal is sent to one of
the processes. After SIGTERM all of them must save and exit while they train; if one dies of the signal because it is still
starting, the others are killed, as a launcher would do.
"""

import argparse
import itertools
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import jax
import numpy as np

from binlatent.checkpoint import checkpoint_steps
from binlatent.data.manifest import Manifest
from tests import processes, tiny

STAGES = ("autoencoder", "prior")
STEPS = 32
LIMIT = 300  # seconds until a run counts as hung
GRACE = 60  # seconds that a run has to save in after SIGTERM
CONFIG = f"""
from tests import tiny

def get_config():
    c = tiny.config({{path!r}})
    for training in (c.autoencoder_training, c.prior_training):
        training.update(num_steps={STEPS}, log_every=1, checkpoint_every=4, evaluate_every={STEPS},
                        steps_per_call={{per_call}})
    return c
"""


class Runs:
    """Runs of one config in work directories of one folder; compiled programs are cached beside it."""

    def __init__(self, folder: Path, num: int, per_call: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.num = folder, num
        (folder / "config.py").write_text(CONFIG.format(path=tiny.npz(folder), per_call=per_call))

    def start(self, name: str) -> list[subprocess.Popen]:
        """Starts the command line."""
        return processes.start(
            ["run", "--config", self.folder / "config.py", "--workdir", self.folder / name],
            processes=self.num,
            log=self.log(name),
            JAX_COMPILATION_CACHE_DIR=str(self.folder.parent / "compiled"),
            JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        )

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def whole(self, name: str) -> float:
        """Runs to the end and returns the seconds that it took."""
        began = time.monotonic()
        statuses = [status for status, _ in processes.finish(self.start(name), LIMIT)]
        assert statuses == [0] * self.num, f"a run that was left alone failed with {statuses}: see {self.log(name)}"
        return time.monotonic() - began

    def steps(self, name: str) -> dict[str, int]:
        return {s: max(checkpoint_steps(self.folder / name / s / "checkpoints"), default=0) for s in STAGES}

    def bars(self, name: str, begin: int) -> list[str]:
        """What the log shows the progress of, from its byte `begin` on."""
        with self.log(name).open() as log:
            log.seek(begin)
            return re.findall(r"(\w+): +\d+%\|", log.read())

    def interrupted(
        self, name: str, after: float, number: signal.Signals, victim: int, *, training: bool
    ) -> tuple[str, str] | None:
        """Starts a run and sends a signal to one of its processes.

        Args:
          after: seconds from the start, or where `training`, from the first sign of a stage being trained.

        Returns:
          What had been begun last, and what happened; None if the run had ended by then.
        """
        begin = self.log(name).stat().st_size if self.log(name).exists() else 0
        started, end = self.start(name), time.monotonic() + after
        try:
            while any(process.poll() is None for process in started):
                if training and not {*self.bars(name, begin)} & {*STAGES}:
                    end = time.monotonic() + after
                if time.monotonic() >= end:
                    break
                time.sleep(0.02)
            statuses = [process.poll() for process in started]
            if None not in statuses:
                assert statuses == [0] * self.num, f"a resumed run failed with {statuses}: see {self.log(name)}"
                return None
            where = (["start-up", *self.bars(name, begin)])[-1]
            sent = self.log(name).stat().st_size
            started[victim].send_signal(number)
            end = time.monotonic() + (GRACE if number == signal.SIGTERM else 0)
            while time.monotonic() < end and any(process.poll() is None for process in started):
                time.sleep(0.05)
                if any(process.poll() == -number for process in started):  # not yet, or no longer, ready to save
                    break
        finally:
            for process in started:
                process.kill()
                process.wait()
        statuses = [process.returncode for process in started]
        with self.log(name).open() as log:
            log.seek(begin)
            stopped = re.findall(r"^(\w+): stopped at step (\d+) as requested", log.read(), re.MULTILINE)
        if stopped:
            (stage, step), saved = stopped[-1], self.steps(name)
            assert statuses == [0] * self.num, f"asked to end, it ended with {statuses}: see {self.log(name)}"
            assert saved[stage] == int(step), f"stopped at step {step} with a checkpoint of {saved[stage]}"
            return where, f"saved, {stage} {step}"
        if statuses == [0] * self.num:
            assert set(self.bars(name, sent)) <= {where}, f"it went on after {number.name}: see {self.log(name)}"
            return where, "ended by itself"
        assert -number in statuses or number == signal.SIGKILL, f"{statuses}: see {self.log(name)}"
        return where, f"killed, {self.steps(name)}"


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
    for stage in STAGES:
        pairs = list(zip(state(a / stage), state(b / stage), strict=True))
        wrong = sum(not np.array_equal(x, y) for x, y in pairs)
        print(f"{stage}: {len(pairs) - wrong} of {len(pairs)} arrays of step {STEPS} are bit-equal", flush=True)
        found += [stage] * bool(wrong)
    shards = [{k: [s.records.sha256 for s in v] for k, v in Manifest.load(w / "codes").shards.items()} for w in (a, b)]
    return found + ["codes"] * (shards[0] != shards[1])


def interrupt(runs: Runs, number: signal.Signals, kills: int, spans: tuple[float, float], draw: random.Random) -> None:
    """Interrupts runs `kills` times, or more until each stage was interrupted, and compares each with the one left alone.

    Args:
      spans: seconds that an interruption may fall in, after the start (every other one) and after training has begun.
    """
    found, saved, rounds = Counter(), 0, 0
    while found.total() < kills or not set(STAGES) <= set(found):  # a run may end before: then another one begins
        name, rounds = f"{number.name}{rounds}", rounds + 1
        while found.total() < kills or not set(STAGES) <= set(found):
            training = found.total() % 2 == 0
            after, victim = draw.uniform(0, spans[training]), draw.randrange(runs.num)
            result = runs.interrupted(name, after, number, victim, training=training)
            if result is None:
                break
            where, what = result
            found[where], saved = found[where] + 1, saved + what.startswith("saved")
            since = "of training" if training else "from the start"
            print(
                f"{number.name} {found.total()}, process {victim}, {after:.1f} s {since}, {where}: {what}", flush=True
            )
        runs.whole(name)
        if wrong := differences(runs.folder / "alone", runs.folder / name):
            sys.exit(f"DIFFERENT from the run left alone: {', '.join(wrong)}")
    where = ", ".join(f"{count} in {name}" for name, count in found.items())
    print(
        f"{number.name}: {found.total()} ({where}; {saved} saved), {rounds} runs, all equal to the one left alone",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--signal", nargs="+", choices=("KILL", "TERM"), default=["KILL", "TERM"])
    parser.add_argument("--processes", type=int, nargs="+", default=[1])
    parser.add_argument("--steps_per_call", type=int, nargs="+", default=[1])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for num, per_call in itertools.product(args.processes, args.steps_per_call):
        runs = Runs(args.folder / f"{num}-{per_call}", num, per_call)
        runs.whole("alone")
        startup, whole = runs.whole("alone"), runs.whole("again")  # with what is compiled
        print(f"{num} processes, {per_call} steps a call: {whole:.0f} s, of which {startup:.0f} s to start", flush=True)
        if wrong := differences(runs.folder / "alone", runs.folder / "again"):
            sys.exit(f"two runs that were left alone differ: {', '.join(wrong)}")
        part = (whole - startup) / args.kills  # so that all interruptions together take a run about as far as its end
        for name in args.signal:
            interrupt(
                runs, signal.Signals[f"SIG{name}"], args.kills, (startup + 2 * part, 2 * part), random.Random(args.seed)
            )


if __name__ == "__main__":
    main()
