"""How well a prior tells captions of real images apart.

    python -m binlatent.machines.retrieval runs/emoji --num 200 --choices 10

Every validation image is compared with its own caption and with those of nine others, by the bound on its code's
likelihood given the caption, with the same noise for all of them (Li et al., 2023, "Your Diffusion Model is Secretly a
Zero-Shot Classifier"):

* retrieval: the share of images whose own caption has the lowest bound; 1 / choices is chance. Equal captions count as
  the image's own.
* gain: bits by which the own caption lowers the bound, against the mean of the others.

It needs no pretrained weights. It says what the prior has learnt of captions, not how its samples look.
"""

import argparse
from collections.abc import Callable

import numpy as np

from binlatent.console import progress, say, script
from binlatent.data.loader import captioned_images
from binlatent.errors import UserError
from binlatent.evaluate.evaluation import Evaluation


def score(bound: Callable[[list[str]], np.ndarray], captions: list[str], *, choices: int) -> dict[str, float]:
    """`retrieval` and `gain`, in groups of `choices` neighbours.

    Args:
      bound: gives the bounds in bits (n,) of the n images under n captions.
      captions: of the images.
      choices: a divisor of n, at least 2.

    Raises:
      ValueError: n is no multiple of `choices`.
    """
    if choices < 2 or len(captions) % choices:
        raise ValueError(f"{len(captions)} images cannot be divided into groups of {choices}")
    groups = np.arange(len(captions)).reshape(-1, choices)
    bits, same = [], []
    with progress(choices, "retrieval", "choice") as bar:
        for shift in range(choices):
            given = [captions[i] for i in np.roll(groups, -shift, axis=1).ravel()]
            bits.append(bound(given))
            same.append([a == b for a, b in zip(given, captions, strict=True)])
            bar.update()
    bits = np.stack(bits)
    others = np.ma.masked_array(bits, np.array(same))
    right = bits[0] < others.min(0).filled(np.inf)
    return {"retrieval": float(right.mean()), "gain": float((others.mean(0) - bits[0]).mean())}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--num", type=int, default=200, help="validation images")
    parser.add_argument("--choices", type=int, default=10, help="captions that an image is compared with")
    parser.add_argument("--steps", type=int, default=16, help="terms of the bound")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args(arguments)
    evaluation = Evaluation.open(args.workdir)
    splits = evaluation.splits
    if not splits.captions:
        raise UserError(f"{args.workdir}: its data have no captions (data.captions)")
    images, captions = captioned_images(splits.validation, evaluation.data, args.num)
    num = len(images) // args.choices * args.choices
    if not num:
        raise UserError(f"--choices {args.choices}: there are {len(images)} validation images")
    # neighbours in a set may look alike: a group is drawn from all of them
    order = np.random.default_rng(args.seed).permutation(len(images))[:num]
    model, captions = evaluation.pipeline, [captions[i] for i in order]
    codes = model.encode(images[order])
    found = score(
        lambda given: model.elbo_terms(codes, args.seed, steps=args.steps, prompts=given).sum(0),
        captions,
        choices=args.choices,
    )
    say(f"| images | choices | retrieval | gain in bits |\n|---|---|---|---|\n| {num} | {args.choices} | "
        f"{found['retrieval']:.3f} | {found['gain']:.1f} |")  # fmt: skip


if __name__ == "__main__":
    script(main)
