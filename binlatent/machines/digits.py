"""Scores of generated digits without pretrained networks: are they recognisable, are they varied, are they copies?

    python -m binlatent.machines.digits runs/digits --steps 4,8,16,32,64

All scores are of pixels in [0, 16], scikit-learn's range, over `num` samples with the classes in turn:

* recognised: the share of samples that a support vector machine assigns to the requested class. The machine is trained
  on half of the real digits and tested on the other half.
* frechet: the Fréchet distance between Gaussians fitted to the samples and to the training images.
* variance: the pixel variance of a class divided by that of its training images; the mean and the minimum over classes.
* precision, recall: the share of samples within the manifold of the training images, and the reverse (Kynkäänniemi et al., 2019;
  3 neighbours).
* nearest: the median distance of samples to their nearest training image, divided by that of held-out digits; 0 for
  copies.
"""

import argparse
import functools

import numpy as np

from binlatent import config as config_lib
from binlatent.console import numbers, say, script
from binlatent.data.loader import eval_batches
from binlatent.evaluate.scores import frechet_distance_of_samples, manifold_scores
from binlatent.experiment import Experiment
from binlatent.images import to_uint8
from binlatent.pipeline import Pipeline
from binlatent.sampling.inputs import steps_of

COLUMNS = ("recognised", "frechet", "precision", "recall", "variance", "smallest_variance", "nearest")


@functools.cache
def classifier():
    """A support vector machine trained on half of the real digits, and its accuracy on the other half."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.svm import SVC

    x, y = load_digits(return_X_y=True)
    fit_x, held_x, fit_y, held_y = train_test_split(x, y, test_size=0.5, random_state=0, stratify=y)
    model = SVC(gamma=0.001, C=10).fit(fit_x, fit_y)
    return model, model.score(held_x, held_y)


def images_of(experiment: Experiment, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images (n, 64) of a split as floats in [0, 16], and their labels (n,)."""
    source = getattr(experiment.splits(), split)
    batches = list(eval_batches(source, config_lib.build_data(experiment.config), batch_size=64))
    images = np.concatenate([b["image"][b["mask"]] for b in batches])
    return _flat(images), np.concatenate([b["label"][b["mask"]] for b in batches])


def _flat(images: np.ndarray) -> np.ndarray:
    return to_uint8(images).reshape(len(images), -1) / 255 * 16


def nearest(images: np.ndarray, others: np.ndarray) -> float:
    """The median distance of images to the nearest of the others."""
    from scipy.spatial.distance import cdist

    return float(np.median(cdist(images, others).min(1)))


def score_images(experiment: Experiment, images: np.ndarray) -> dict[str, float]:
    """The scores `COLUMNS` of images (n, 8, 8, 1) with classes 0 … 9 in turn."""
    labels, samples = np.arange(len(images)) % 10, _flat(images)
    (train, train_labels), (held, _) = (images_of(experiment, split) for split in ("train", "validation"))
    manifold = manifold_scores(samples, train)
    ratios = [samples[labels == c].var(0).sum() / train[train_labels == c].var(0).sum() for c in range(10)]
    return {
        "recognised": float((classifier()[0].predict(samples) == labels).mean()),
        "frechet": frechet_distance_of_samples(samples, train),
        "precision": manifold.precision,
        "recall": manifold.recall,
        "variance": float(np.mean(ratios)),
        "smallest_variance": float(min(ratios)),
        "nearest": nearest(samples, train) / nearest(held, train),
    }


def score(experiment: Experiment, model: Pipeline, num: int = 1000, seed: int = 7, **options) -> dict[str, float]:
    """The scores of `num` samples; `options` are passed to `Pipeline.sample`."""
    return score_images(experiment, model.sample(seed=seed, num=num, labels=np.arange(10), **options))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--steps", type=numbers, help="(default: 4,8,16,32,64; of a student those that it has learned)")
    parser.add_argument("--posterior", default="mixture,plugin")
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--last_step")
    parser.add_argument("--student", action="store_true", help="score the prior's student")
    parser.add_argument("--temperature", type=float)
    args = parser.parse_args(argv)
    experiment, model = Experiment.open(args.workdir), Pipeline.load(args.workdir, batch_size=250, student=args.student)
    say(f"accuracy of the support vector machine on held-out digits: {classifier()[1]:.4f}")
    say(f"| steps | posterior | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    usual = steps_of(model.student) if model.student else (4, 8, 16, 32, 64)
    for posterior in args.posterior.split(","):
        model.options(posterior=posterior)  # an error before the first is sampled
    for steps in args.steps or usual:
        for posterior in args.posterior.split(","):
            options = {"guidance": args.guidance, "last_step": args.last_step, "temperature": args.temperature}
            scores = score(experiment, model, args.num, args.seed, steps=steps, posterior=posterior, **options)
            say(f"| {steps} | {posterior} | " + " | ".join(f"{scores[name]:.3f}" for name in COLUMNS) + " |")


if __name__ == "__main__":
    script(main)
