"""The ablation of stage 1 in `docs/ablation.md`: the effect of each loss term on reconstructions, codes and their prior.

    python -m binlatent.machines.ablation --data CIFAR10_FOLDER --out runs/ablation

CIFAR10_FOLDER has one sub-folder of 32×32 images per class. Every arm has its own work directory; arms differ only in
what their name says, and each has a prior with the same budget, trained on its codes. Finished arms are not trained again,
so the command can be stopped and repeated; the table is rewritten after each arm.
"""

import argparse
import pathlib

import numpy as np

from binlatent.console import say

BASE = {
    "data.source": "npz", "data.resolution": 32, "data.validation_fraction": 0.1,
    "autoencoder.patch_size": 2, "autoencoder.channels": 24, "autoencoder.channel_multipliers": (1, 2),
    "autoencoder.res_blocks": 1, "autoencoder.attention_resolutions": (), "autoencoder.embedding_width": 64,
    "autoencoder_loss.sample_entropy.weight": 0.0, "autoencoder_loss.batch_entropy.weight": 0.0,
    "autoencoder_optimizer.learning_rate": 1e-3, "autoencoder_optimizer.schedule": "cosine",
    "autoencoder_optimizer.warmup_steps": 50, "autoencoder_optimizer.ema_decay": 0.99,
    "discriminator.channels": 16, "discriminator.layers": 2, "discriminator_optimizer.learning_rate": 5e-4,
    "prior.width": 96, "prior.depth": 3, "prior.heads": 3,
    "prior_optimizer.learning_rate": 1e-3, "prior_optimizer.schedule": "cosine", "prior_optimizer.warmup_steps": 50,
    "prior_optimizer.weight_decay": 0.01, "prior_optimizer.ema_decay": 0.99,
}  # fmt: skip

ADVERSARIAL = {"autoencoder_loss.adversarial.weight": 0.1, "discriminator_loss.max_adaptive_weight": 10.0}
SAMPLE_ENTROPY = {"autoencoder_loss.sample_entropy.weight": 0.02}
ENTROPY = SAMPLE_ENTROPY | {"autoencoder_loss.batch_entropy.weight": 0.02}
SIGN = {"autoencoder.deterministic": True}

ARMS = {
    "plain": {},
    "+ adversarial": ADVERSARIAL,
    "+ sample entropy": SAMPLE_ENTROPY,
    "+ both entropies": ENTROPY,
    "sign": SIGN,
    "sign + both entropies": SIGN | ENTROPY,
}

# (part, key) of a score → heading and format
COLUMNS = {
    ("reconstruction", "psnr"): ("PSNR, dB", "{:.2f}"),
    ("reconstruction", "ssim"): ("SSIM", "{:.3f}"),
    ("reconstruction", "l1"): ("L1", "{:.4f}"),
    ("code", "dead_bits"): ("dead bits", "{:.0f}"),
    ("code", "bit_entropy"): ("bit entropy", "{:.3f}"),
    ("code", "bit_correlation"): ("correlation", "{:.3f}"),
    ("likelihood", "bits_per_bit"): ("prior, bits per bit", "{:.3f}"),
}


def images_of(folder: pathlib.Path, out: pathlib.Path, num: int) -> pathlib.Path:
    """Writes an npz file of the first images of every class, `num` in total."""
    from PIL import Image

    path = out / f"images-{num}.npz"
    if not path.exists():
        classes = sorted(p for p in folder.iterdir() if p.is_dir())
        images, labels = [], []
        for label, class_folder in enumerate(classes):
            for file in sorted(class_folder.iterdir())[: num // len(classes)]:
                images.append(np.asarray(Image.open(file).convert("RGB")))
                labels.append(label)
        np.savez(path, images=np.stack(images), labels=np.asarray(labels, np.int32))
    return path


def config_of(arm: str, bits: int, args) -> list[str]:
    """The overrides of the default config for an arm."""
    start = args.steps // 5
    values = BASE | {"data.path": str(args.images), "autoencoder.code_bits": bits, "seed": args.seed} | ARMS[arm]
    if "autoencoder_loss.adversarial.weight" in values:
        values["autoencoder_loss.adversarial.start_step"] = start
    for stage, steps in (("autoencoder", args.steps), ("prior", args.prior_steps)):
        values |= {
            f"{stage}_training.num_steps": steps, f"{stage}_training.batch_size": 32,
            f"{stage}_training.evaluate_every": steps, f"{stage}_training.checkpoint_every": 200,
        }  # fmt: skip
    return [f"{key}={value}" for key, value in values.items()]


def run(arm: str, bits: int, args) -> dict[tuple[str, str], float]:
    """Trains both stages of an arm and scores them; returns the scores of `COLUMNS`."""
    from binlatent import config as config_lib
    from binlatent.evaluate.evaluation import Evaluation
    from binlatent.evaluate.options import EvaluationOptions
    from binlatent.experiment import Experiment

    workdir = args.out / f"{bits} bits, {arm}".replace(" ", "_").replace(",", "")
    config = config_lib.override(config_lib.defaults(), config_of(arm, bits, args))
    say(f"== {workdir}")
    experiment = Experiment.open(workdir, config)
    experiment.train("autoencoder")
    experiment.encode()
    experiment.train("prior")
    options = EvaluationOptions(likelihood_num=256, likelihood_steps=64)
    parts = Evaluation.open(workdir).run(("reconstruction", "code", "likelihood"), options)
    scores = {(name, score.key): score.value for name, part in parts.items() for score in part.scores}
    return {column: scores[column] for column in COLUMNS}


def table(results: dict[tuple[int, str], dict], args) -> str:
    lines = [
        "| code | arm | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for (bits, arm), scores in results.items():
        cells = (form.format(scores[column]) for column, (_, form) in COLUMNS.items())
        lines.append(f"| 8×8×{bits} | {arm} | " + " | ".join(cells) + " |")
    description = (
        f"{args.num} images (a tenth of them for validation), {args.steps} steps of 32 images for the autoencoder, "
        f"{args.prior_steps} steps of 32 codes for the prior, seed {args.seed}."
    )
    return description + "\n\n" + "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of class folders of 32×32 images")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for work directories and table.md")
    parser.add_argument("--arms", default=",".join(ARMS), help="comma-separated (default: all)")
    parser.add_argument("--bits", default="16,32", help="bits per token, comma-separated (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="steps of the autoencoder (default: %(default)s)")
    parser.add_argument("--prior_steps", type=int, default=1000, help="steps of the prior (default: %(default)s)")
    parser.add_argument("--num", type=int, default=10_000, help="number of images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    args.images = images_of(args.data, args.out, args.num)
    results = {}
    for bits in map(int, args.bits.split(",")):
        for arm in args.arms.split(","):
            results[bits, arm] = run(arm, bits, args)
            (args.out / "table.md").write_text(table(results, args))
            say(table(results, args))


if __name__ == "__main__":
    main()
