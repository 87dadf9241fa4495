"""Seams: do pixels differ more across the edge of a mask, or of a window, than elsewhere?

    python -m binlatent.machines.seams runs/emoji

Held-out images are completed without a class or a prompt: the middle of each (half its height and width) is made anew, and
each is continued to the right and to the bottom by its own size. Each ratio is the mean absolute difference of two
neighbouring pixels across a border, over that of all other neighbours; 1 is no seam.

* inpainting, mask's edge: over all other neighbours of the picture; also of the original pictures at the same places, whose
  middle may have more contrast than its surroundings.
* outpainting, picture's edge: between the given picture and what is made, over all other neighbours of the canvas.
* outpainting, edges of windows: of neighbours that are both made; over those at other edges of tokens, since neighbours in
  one token differ less.
"""

import argparse

import numpy as np

from binlatent import config as config_lib
from binlatent.console import say, script
from binlatent.data.loader import spread_images
from binlatent.editing.complete import inpaint, outpaint
from binlatent.experiment import Experiment
from binlatent.images import to_float
from binlatent.pipeline import Pipeline
from binlatent.sampling.windows import Windows

Pairs = tuple[
    np.ndarray, np.ndarray
]  # bool (h − 1, w) and (h, w − 1): of neighbours above each other, and side by side


def ratio(images: np.ndarray, across: Pairs, elsewhere: Pairs) -> float:
    """Mean absolute difference of the neighbours `across` over that of those `elsewhere`, of images (b, h, w, c)."""

    def mean(pairs: Pairs) -> float:
        steps = [np.abs(np.diff(images, axis=1 + i))[:, pair].ravel() for i, pair in enumerate(pairs)]
        return float(np.concatenate(steps).mean())

    return mean(across) / mean(elsewhere)


def without(pairs: Pairs, others: Pairs) -> Pairs:
    """The pairs that are not among the others."""
    rows, columns = (a & ~b for a, b in zip(pairs, others, strict=True))
    return rows, columns


def every(shape: tuple[int, int]) -> Pairs:
    """All neighbours of a picture (h, w)."""
    height, width = shape
    return np.ones((height - 1, width), bool), np.ones((height, width - 1), bool)


def mask_edge(mask: np.ndarray) -> Pairs:
    """Neighbours of which one is in the mask (h, w)."""
    return mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]


def inside(mask: np.ndarray) -> Pairs:
    """Neighbours that are both in the mask (h, w)."""
    return mask[1:] & mask[:-1], mask[:, 1:] & mask[:, :-1]


def lines(shape: tuple[int, int], rows: list[int], columns: list[int]) -> Pairs:
    """Neighbours of a picture (h, w) across lines: row r is between r − 1 and r."""
    pairs = tuple(np.zeros_like(pair) for pair in every(shape))
    pairs[0][np.asarray(rows, int) - 1] = True
    pairs[1][:, np.asarray(columns, int) - 1] = True
    return pairs[0], pairs[1]


def window_edges(windows: Windows, scale: int) -> Pairs:
    """Neighbours, in pixels, across the edges of a canvas's windows."""
    edges = [
        sorted({(corner[axis] + end) * scale for corner in windows.corners for end in (0, side)} - {0, whole * scale})
        for axis, (side, whole) in enumerate(zip(windows.size, windows.canvas, strict=True))
    ]
    height, width = windows.canvas
    return lines((height * scale, width * scale), *edges)


def measure(model: Pipeline, images: np.ndarray, **options) -> dict[str, float]:
    """Ratios of images (b, h, w, c), float in [0, 1], of the model's size."""
    side, scale = images.shape[1], model.autoencoder.net.downsampling
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side - side // 4, side // 4 : side - side // 4] = True
    edge = mask_edge(mask)
    others = without(every(mask.shape), edge)
    filled = inpaint(model, images, mask, **options).images
    canvas = outpaint(model, images, (0, 0, side, side), **options).images
    made = np.ones(canvas.shape[1:3], bool)
    made[:side, :side] = False
    frame, new = mask_edge(made), inside(made)
    tokens = lines(made.shape, *[list(range(scale, whole, scale)) for whole in made.shape])
    windows = window_edges(Windows(size=model.code_shape[:2], canvas=tuple(n // scale for n in made.shape)), scale)
    windows, tokens = (tuple(a & b for a, b in zip(pairs, new, strict=True)) for pairs in (windows, tokens))
    return {
        "inpainting, mask's edge": ratio(filled, edge, others),
        "the same of the originals": ratio(images, edge, others),
        "outpainting, picture's edge": ratio(canvas, frame, without(every(made.shape), frame)),
        "outpainting, edges of windows": ratio(canvas, windows, without(tokens, windows)),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--num", type=int, default=64, help="held-out images (default: 64)")
    parser.add_argument("--steps", type=int, help="default: the config's")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    experiment, model = Experiment.open(args.workdir), Pipeline.load(args.workdir)
    images = spread_images(experiment.splits().validation, config_lib.build_data(experiment.config), args.num)
    steps = model.options(steps=args.steps).steps
    say(f"{len(images)} held-out images, {steps} steps, seed {args.seed}")
    say("| across | ratio |\n|---|---|")
    found = measure(model, np.asarray(to_float(images)), steps=steps, guidance=0.0, seed=args.seed)
    for name, value in found.items():
        say(f"| {name} | {value:.2f} |")


if __name__ == "__main__":
    script(main)
