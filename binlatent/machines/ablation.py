"""The ablation of stage 1 in `docs/ablation.md`: the effect of the loss and of the number of bits on reconstructions, codes and
samples after a fixed training of the prior.

    python -m binlatent.machines.ablation --data CIFAR10_FOLDER --out runs/ablation --seeds 0,1,2
    python -m binlatent.machines.ablation --config emoji:64 --out runs/ablation64 --bits 16,32

An arm is the config with the changes that `ARMS` names, a number of bits and a seed. Each has its own work directory, where it
trains both stages. Data with classes are also scored by the features of one classifier, which the first arm trains. A finished
arm is not trained again, so the command can be stopped and repeated; table.md is rewritten after each, and images.png shows
four validation images, then their reconstructions and four samples of each arm in the order of the table.
"""

import argparse
import json
import pathlib

import numpy as np

from binlatent import config as config_lib
from binlatent.console import numbers, say, script
from binlatent.data.loader import spread_images
from binlatent.errors import UserError
from binlatent.evaluate.classifier import train_classifier
from binlatent.evaluate.evaluation import Evaluation
from binlatent.evaluate.options import EvaluationOptions
from binlatent.experiment import Experiment
from binlatent.files import atomic, digest, write_atomic
from binlatent.images import image_grid, save_image, to_uint8
from binlatent.machines.prior_ablation import copy_folder, seconds_per_step, table
from binlatent.pipeline import Pipeline

PRIOR = {"prior.width": 192, "prior.depth": 6, "prior.heads": 6}  # small, and the same for all arms
NO_ENTROPY = {"autoencoder_loss.sample_entropy.weight": 0.0, "autoencoder_loss.batch_entropy.weight": 0.0}
ADVERSARIAL = {
    "autoencoder_loss.adversarial.weight": 0.1, "discriminator_loss.max_adaptive_weight": 10.0,
    "discriminator.channels": 32, "discriminator.layers": 2, "discriminator_optimizer.learning_rate": 5e-4,
}  # fmt: skip

ARMS = {
    "default": {},
    "without entropies": NO_ENTROPY,
    "without batch entropy": {"autoencoder_loss.batch_entropy.weight": 0.0},
    "without l2": {"autoencoder_loss.l2.weight": 0.0},
    "adversarial": ADVERSARIAL,
    "sign": {"autoencoder.deterministic": True},
}

# (part, key) of a score → its heading
SCORES = {
    ("reconstruction", "psnr"): "PSNR, dB",
    ("reconstruction", "ssim"): "SSIM",
    ("reconstruction", "classifier/reconstruction_frechet_distance"): "distance of reconstructions",
    ("code", "dead_bits"): "dead bits",
    ("code", "bit_entropy"): "bit entropy",
    ("likelihood", "bits_per_bit"): "bits per bit",
    ("likelihood", "bits_per_image"): "bits per image",
    ("generation", "classifier/frechet_distance"): "distance of samples",
}


def images_of(folder: pathlib.Path, out: pathlib.Path, num: int) -> pathlib.Path:
    """Writes an npz file of the first images of every class, `num` in total.

    Raises:
      UserError: the folder has no folders of classes, or more of them than images are asked for.
    """
    from PIL import Image

    path = out / f"images-{num}-{digest(str(folder.resolve()))[:8]}.npz"
    if not path.exists():
        classes = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        if not 1 <= len(classes) <= num:
            raise UserError(f"--data {folder} has {len(classes)} folders of classes: 1 to --num {num} are expected")
        images, labels = [], []
        for label, class_folder in enumerate(classes):
            for file in sorted(class_folder.iterdir())[: num // len(classes)]:
                images.append(np.asarray(Image.open(file).convert("RGB")))
                labels.append(label)
        with atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, images=np.stack(images), labels=np.asarray(labels, np.int32))
    return path


def config_of(arm: str, bits: int, seed: int, args):
    """The config of an arm."""
    config = config_lib.load(args.config)
    values = PRIOR | {"autoencoder.code_bits": bits, "seed": seed} | ARMS[arm]
    if args.images:
        values |= {"data.source": "npz", "data.path": str(args.images), "data.validation_fraction": 0.1}
    if "autoencoder_loss.adversarial.weight" in values:
        values["autoencoder_loss.adversarial.start_step"] = args.steps // 5
    for stage, steps in (("autoencoder", args.steps), ("prior", args.prior_steps)):
        values |= {
            f"{stage}_training.num_steps": steps, f"{stage}_training.evaluate_every": steps,
            f"{stage}_training.checkpoint_every": 250, f"{stage}_optimizer.warmup_steps": min(100, steps // 10),
            f"{stage}_optimizer.ema_decay": 0.99,
        }  # fmt: skip
    return config_lib.override(config, [f"{key}={value}" for key, value in values.items()])


def run(workdir: pathlib.Path, config, args) -> dict[str, float]:
    """Trains both stages of an arm and scores them: values by heading.

    Raises:
      UserError: it was made with other numbers of steps or samples.
    """
    path = workdir / "arm.json"
    names = ("config", "images", "num", "steps", "prior_steps", "samples", "classifier_steps")
    asked = {name: str(getattr(args, name)) for name in names}
    if path.exists():
        made = json.loads(path.read_text())
        if made.get("asked") != asked:
            raise UserError(
                f"{workdir} was made with {made.get('asked')}, now asked for is {asked}: take another --out"
            )
        return made["values"]
    experiment = Experiment.open(workdir, config)
    experiment.train("autoencoder")
    experiment.encode()
    experiment.train("prior")
    parts, features = ["reconstruction", "code", "likelihood"], []
    if experiment.splits().num_classes:
        classifier = args.out / "classifier"
        if classifier.exists() and not (workdir / "classifier").exists():
            copy_folder(classifier, workdir / "classifier")
        else:
            train_classifier(workdir, num_steps=args.classifier_steps)
            if not classifier.exists():
                copy_folder(workdir / "classifier", classifier)
        parts, features = [*parts, "generation"], ["classifier"]
    options = EvaluationOptions(num=args.samples, likelihood_num=256, likelihood_steps=64, sampling={"steps": 16})
    found = Evaluation.open(workdir, features=features).run(parts, options)
    scores = {(name, score.key): score.value for name, part in found.items() for score in part.scores}
    values = {heading: scores[key] for key, heading in SCORES.items() if key in scores}
    values["seconds a step"] = seconds_per_step(experiment, "autoencoder")
    write_atomic(path, json.dumps({"asked": asked, "values": values}, indent=1))
    return values


def pictures(workdir: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Four validation images, and their reconstructions beside four samples, uint8 (4, h, w, c) and (8, h, w, c)."""
    experiment, model = Experiment.open(workdir), Pipeline.load(workdir)
    images = spread_images(experiment.splits().validation, config_lib.build_data(experiment.config), 4)
    made = np.concatenate([model.reconstruct(images), model.sample(num=4, steps=16, seed=1)])
    return images, to_uint8(made)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="image_folder:32,small", help="(default: %(default)s)")
    parser.add_argument(
        "--data", type=pathlib.Path, help="folder of class folders of images of the config's resolution"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, help="folder for work directories, table.md, images.png"
    )
    parser.add_argument("--arms", default=",".join(ARMS), help="comma-separated (default: all)")
    parser.add_argument(
        "--bits", type=numbers, default="32", help="at a position, comma-separated (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=numbers, default="0", help="comma-separated (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="steps of the autoencoder (default: %(default)s)")
    parser.add_argument("--prior_steps", type=int, default=1000, help="steps of the prior (default: %(default)s)")
    parser.add_argument("--num", type=int, default=10_000, help="images of --data (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=1000, help="for a score (default: %(default)s)")
    parser.add_argument("--classifier_steps", type=int, default=1500, help="(default: %(default)s)")
    args = parser.parse_args(argv)
    if unknown := set(args.arms.split(",")) - set(ARMS):
        raise UserError(f"--arms: there is no {', '.join(sorted(unknown))}; there are {', '.join(ARMS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    args.images = images_of(args.data, args.out, args.num) if args.data else None
    results, shown = {}, []
    arms = [(arm, bits) for bits in args.bits for arm in args.arms.split(",")]
    for seed in args.seeds:
        for arm, bits in arms:
            workdir = args.out / f"{arm}-{bits}-{seed}".replace(" ", "_")
            say(f"== {workdir}")
            results.setdefault(f"{arm}, {bits} bits", []).append(run(workdir, config_of(arm, bits, seed, args), args))
            (args.out / "table.md").write_text(table(results))
            if seed == args.seeds[0]:
                originals, made = pictures(workdir)
                shown += [made] if shown else [np.concatenate([originals, originals]), made]
                save_image(args.out / "images.png", image_grid(np.concatenate(shown), columns=8))
    say(table(results))


if __name__ == "__main__":
    script(main)
