"""Are the digits digits? Scores samples of a digits run with a classifier of the real ones.

    python -m tests.digits runs/digits --steps 4,8,16,32,64

Recognised: the share of 1,000 samples that an SVM, trained on half of the real digits, takes for the digit asked for.
Distance: the median distance of a sample to its nearest training image, over that of held-out real digits; 0 are copies.
Variance: the smallest over the classes of the samples' pixel variance, over that of the real digits of the class.
"""

import argparse
import functools

import numpy as np

from binlatent.data.loader import eval_batches
from binlatent.experiment import Experiment
from binlatent.images import to_uint8
from binlatent.pipeline import Pipeline


@functools.cache
def classifier():
    """An SVM of the real digits and its accuracy on the half that it has not seen."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.svm import SVC

    x, y = load_digits(return_X_y=True)
    fit_x, held_x, fit_y, held_y = train_test_split(x, y, test_size=0.5, random_state=0, stratify=y)
    model = SVC(gamma=0.001, C=10).fit(fit_x, fit_y)
    return model, model.score(held_x, held_y)


def images_of(experiment: Experiment, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images (n, 64) of a split as floats in [0, 16], scikit-learn's range, and their labels."""
    from binlatent import config as config_lib

    source = getattr(experiment.splits(), split)
    batches = list(eval_batches(source, config_lib.build_data(experiment.config), batch_size=64))
    images = np.concatenate([b["image"][b["mask"]] for b in batches])
    return _flat(images), np.concatenate([b["label"][b["mask"]] for b in batches])


def _flat(images: np.ndarray) -> np.ndarray:
    return to_uint8(images).reshape(len(images), -1) / 255 * 16


def nearest(images: np.ndarray, others: np.ndarray) -> float:
    """The median distance from an image to the nearest of the others."""
    from scipy.spatial.distance import cdist

    return float(np.median(cdist(images, others).min(1)))


def score(experiment: Experiment, model: Pipeline, num: int = 1000, seed: int = 7, **options) -> dict[str, float]:
    """`recognised`, `distance` and `variance` of samples, see above."""
    labels = np.arange(num) % 10
    samples = _flat(model.sample(seed=seed, num=num, labels=np.arange(10), **options))
    (train, train_labels), (held, _) = (images_of(experiment, split) for split in ("train", "validation"))
    spread = [samples[labels == c].var(0).sum() / train[train_labels == c].var(0).sum() for c in range(10)]
    return {
        "recognised": float((classifier()[0].predict(samples) == labels).mean()),
        "distance": nearest(samples, train) / nearest(held, train),
        "variance": float(min(spread)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--steps", default="4,8,16,32,64")
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--last_step")
    parser.add_argument("--temperature", type=float)
    args = parser.parse_args()
    experiment, model = Experiment.open(args.workdir), Pipeline.load(args.workdir, batch_size=250)
    print(f"held-out accuracy of the classifier: {classifier()[1]:.4f}")
    print("| steps | posterior | recognised | distance | variance |\n|---|---|---|---|---|")
    for steps in (int(s) for s in args.steps.split(",")):
        for posterior in ("mixture", "plugin"):
            options = {"guidance": args.guidance, "last_step": args.last_step, "temperature": args.temperature}
            found = score(experiment, model, steps=steps, posterior=posterior, **options)
            print(f"| {steps} | {posterior} | " + " | ".join(f"{v:.3f}" for v in found.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
