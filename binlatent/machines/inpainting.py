"""Inpainting of held-out digits: is the completed digit still recognised as the original?

    python -m binlatent.machines.inpainting runs/digits

The lower rows of the validation digits are masked, and the support vector machine of `machines.digits` reads the completed
images; no class is given. The ways to complete them:

* tokens: the bits of tokens without a masked pixel are known, from the code of the image with the masked pixels grey; the
  result is what the code decodes to.
* leak: the same from the code of the whole image, whose known tokens have seen the masked pixels.
* bits: the bits that do not depend on the masked pixels are known (`editing.known.known_code`), decoded.
* pasted: the same, with the known pixels put back (`editing.complete.inpaint`).

Of `bits` and `pasted` also the seam: the mean absolute difference between the pixels on both sides of the mask's edge, over
that of the original images.
"""

import argparse

import numpy as np

from binlatent.console import numbers, script
from binlatent.editing.complete import FILLINGS, inpaint
from binlatent.editing.known import known_code
from binlatent.experiment import Experiment
from binlatent.images import to_uint8
from binlatent.machines.digits import classifier, images_of
from binlatent.pipeline import Pipeline


def recognised(images: np.ndarray, labels: np.ndarray) -> float:
    return float((classifier()[0].predict(to_uint8(images).reshape(len(images), -1) / 255 * 16) == labels).mean())


def seam(images: np.ndarray, rows: int) -> float:
    """Mean absolute difference of the two rows at the edge of a mask of the last `rows` rows."""
    return float(np.abs(images[:, -rows] - images[:, -rows - 1]).mean())


def complete(model: Pipeline, images: np.ndarray, rows: int, passes: int, **options) -> dict[str, np.ndarray]:
    """The images (b, h, w, c), float in [0, 1], completed in each way, their last rows masked."""
    mask = np.zeros(images.shape[:3], bool)
    mask[:, -rows:] = True
    size = model.autoencoder.net.downsampling
    tokens = ~mask.reshape(len(mask), -1, size, mask.shape[2] // size, size).any((2, 4))
    grey = np.where(mask[..., None], np.float32(0.5), images)
    fillings = model.sample(num=FILLINGS, **options)

    def edited(codes, known):
        return model.decode(model.edit(codes, known=np.ascontiguousarray(known), passes=passes, **options))

    codes = model.encode(images)
    known = np.broadcast_to(tokens[..., None], codes.shape)
    return {
        "tokens": edited(model.encode(grey), known),
        "leak": edited(codes, known),
        "bits": edited(*known_code(model, images, mask, fillings)),
        "pasted": inpaint(model, images, mask, passes=passes, **options).images,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--rows", type=numbers, default="1,2,3,4,5,6")
    parser.add_argument("--passes", type=numbers, default="1,4,16")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = Pipeline.load(args.workdir, batch_size=256)
    flat, labels = images_of(Experiment.open(args.workdir), "validation")
    images = (flat / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    print(f"{len(images)} digits; recognised as they are: {recognised(images, labels):.3f}")
    print(
        "| share masked | passes | tokens | leak | bits | pasted | seam, bits | seam, pasted |\n|---|---|---|---|---|---|---|---|"
    )
    for rows in args.rows:
        for passes in args.passes:
            made = complete(model, images, rows, passes, steps=args.steps, seed=args.seed)
            cells = [f"{recognised(each, labels):.3f}" for each in made.values()]
            cells += [f"{seam(made[name], rows) / seam(images, rows):.2f}" for name in ("bits", "pasted")]
            print(f"| {rows / 8:.3f} | {passes} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    script(main)
