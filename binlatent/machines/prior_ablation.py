"""What each part of the prior is worth, on the codes of one autoencoder; the tables of `docs/prior.md`.

    python -m binlatent.machines.prior_ablation --workdir runs/digits --out runs/arms --seeds 0,1,2 \\
        --arm default --arm one_component:prior.components=1 --arm release:config=release:digits

An arm is a name and comma-separated config overrides, of another config than that of `--workdir` where one of them is
`config=NAME`. Its work directory shares the autoencoder and the codes of `--workdir`, which are encoded again where its
section `codes` differs, and trains a prior of its own. A finished arm is not trained again, so the command can be stopped and
repeated. Digits are scored by `machines.digits`; other data by the Fréchet distance of the features of the classifier that
`binlatent train-classifier` left in `--workdir`.
"""

import argparse
import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from binlatent import bits
from binlatent import config as config_lib
from binlatent.console import numbers, say, script
from binlatent.data.codes import CodeSource
from binlatent.data.sources.base import Example
from binlatent.data.spread import Spread
from binlatent.errors import UserError
from binlatent.evaluate.evaluation import Evaluation
from binlatent.evaluate.options import EvaluationOptions
from binlatent.evaluate.report import figures
from binlatent.experiment import Experiment
from binlatent.files import write_atomic
from binlatent.machines import digits
from binlatent.pipeline import Pipeline
from binlatent.train.metrics import read_records

SHARED = ("autoencoder", "codes", "classifier")
NAMED = "config="  # names the config of an arm


def make_arm(source: pathlib.Path, workdir: pathlib.Path, changes: list[str], seed: int) -> Experiment:
    """A work directory with the autoencoder and the codes of another, and a config of its own."""
    config = config_of(source, changes, seed)
    for name in SHARED:
        if (source / name).exists() and not (workdir / name).exists():
            copy_folder(source / name, workdir / name)
    return Experiment.open(workdir, config)


def config_of(source: pathlib.Path, changes: list[str], seed: int) -> ConfigDict:
    """The config of an arm: that of a work directory, or a shipped one that is named, with changes."""
    named = [change.removeprefix(NAMED) for change in changes if change.startswith(NAMED)]
    overrides = [change for change in changes if not change.startswith(NAMED)]
    values = config_lib.load(named[-1]) if named else Experiment.open(source).config
    return config_lib.override(values, [f"seed={seed}", *overrides])


def split_overrides(text: str) -> list[str]:
    """The overrides of an arm, KEY=VALUE,KEY=VALUE; a value may have commas in it, as `config=image_folder:32,small` has."""
    return re.split(r",(?=[\w.]+=)", text) if text else []


def copy_folder(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a folder; an interrupted copy leaves no `target`."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    partial.rename(target)


def validation_codes(experiment: Experiment, shape: tuple[int, int, int]) -> tuple[np.ndarray, list[Example]]:
    """Up to 512 validation codes, spread evenly over the set, bool (n, y, x, k), and their records."""
    codes = Spread(CodeSource(experiment.codes, "validation"), 512)
    records = [codes[i] for i in range(len(codes))]
    packed = jnp.asarray(np.stack([record["code"] for record in records]))
    return np.asarray(bits.unpack(packed, shape)), records


def bits_per_bit(experiment: Experiment, model: Pipeline, steps: int) -> float:
    """The bound of `validation_codes` with `steps` steps, summed over all of them; mean bits per latent bit."""
    code, records = validation_codes(experiment, model.code_shape)
    labels = np.array([record["label"] for record in records]) if "label" in records[0] else None
    return float(model.bits_per_bit(code, labels=labels, steps=steps).mean())


def seconds_per_step(experiment: Experiment, stage: str) -> float:
    """The median over the records of a stage's training."""
    records = read_records(experiment.workdir / stage)
    return float(np.median([record["train/seconds_per_step"] for record in records if "train/loss" in record]))


def run_arm(experiment: Experiment, steps: list[int], num: int) -> dict[str, float]:
    """Trains an arm and scores it: `bits_per_bit`, `seconds_per_step`, `parameters`, and every score at every step count."""
    experiment.encode()
    experiment.train("prior")
    model = Pipeline.load(experiment.workdir, batch_size=250)
    path = experiment.workdir / f"arm-{model.prior.step}-{num}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if "bits_per_bit" not in found:
        found["bits_per_bit"] = bits_per_bit(experiment, model, 256)
        found["seconds_per_step"] = seconds_per_step(experiment, "prior")
        found["parameters"] = sum(x.size for x in jax.tree.leaves(model.prior.params))
    for count in steps:
        if f"frechet_{count}" in found:
            continue
        if experiment.config.data.source == "digits":
            scores = digits.score(experiment, model, num, steps=count)
        else:
            scores = _classifier_scores(experiment, count, num)
        found |= {f"{name}_{count}": value for name, value in scores.items()}
        write_atomic(path, json.dumps(found, indent=1))
    return found


def _classifier_scores(experiment: Experiment, steps: int, num: int) -> dict[str, float]:
    options = EvaluationOptions(num=num, sampling={"steps": steps})
    part = Evaluation.open(experiment.workdir, features=("classifier",), batch_size=250).part("generation", options)
    scores = {score.key.rpartition("/")[2]: score.value for score in part.scores}
    kept = {"frechet": "frechet_distance", "precision": "precision", "recall": "recall", "accuracy": "accuracy"}
    return {name: scores[key] for name, key in kept.items() if key in scores}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: one row per arm, the mean over seeds and, with several, ± half the range."""
    names = list(dict.fromkeys(name for rows in results.values() for row in rows for name in row))
    lines = ["| arm | seeds | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for arm, rows in results.items():
        cells = []
        for name in names:
            values = [row[name] for row in rows if name in row]
            spread = f" ± {(max(values) - min(values)) / 2:.2g}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.4g}{spread}" if values else "")
        lines.append(f"| {arm} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(results: dict[str, list[dict[str, float]]]) -> str:
    """SVG: the mean Fréchet distance of each arm against the number of steps."""
    lines = {}
    for arm, rows in results.items():
        names = set.intersection(*map(set, rows))  # a seed may have been scored at more steps before
        steps = sorted(int(name.removeprefix("frechet_")) for name in names if name.startswith("frechet_"))
        lines[arm] = steps, [np.mean([row[f"frechet_{count}"] for row in rows]) for count in steps]
    return figures.curves("Fréchet distance", lines, x="steps", log=True, ink="#808080")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="its autoencoder and codes are used")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the arms, table.md and steps.svg")
    parser.add_argument("--arm", action="append", required=True, metavar="NAME[:KEY=VALUE,…]", help="may be repeated")
    parser.add_argument("--seeds", type=numbers, default="0")
    parser.add_argument("--steps", type=numbers, default="2,4,8,16,64")
    parser.add_argument("--num", type=int, default=1000, help="samples of a score (default: %(default)s)")
    args = parser.parse_args(argv)
    arms, results = {name: split_overrides(rest) for name, _, rest in (arm.partition(":") for arm in args.arm)}, {}
    if len(arms) < len(args.arm):
        raise UserError(f"two of the arms {', '.join(args.arm)} have the same name")
    for overrides in arms.values():  # all are right before the first is trained
        config_lib.check(config_of(args.workdir, overrides, 0))
    for seed in args.seeds:
        for name, overrides in arms.items():
            workdir = args.out / f"{name}-{seed}"
            say(f"== {workdir}")
            experiment = make_arm(args.workdir, workdir, overrides, seed)
            results.setdefault(name, []).append(run_arm(experiment, args.steps, args.num))
            (args.out / "table.md").write_text(table(results))
    (args.out / "steps.svg").write_text(plot(results))
    say(table(results))


if __name__ == "__main__":
    script(main)
