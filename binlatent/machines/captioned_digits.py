"""Whether pictures of captioned digits show what their captions say.

    python -m binlatent.machines.captioned_digits runs/captions --guidance 0,1,2

Canvases are drawn as the data set draws them, of combinations that training has seen and of those that are held out of it.
Of each one caption is the prompt of one sample, and every digit that the caption names is looked for in its place:

* positions: the share of digits that a support vector machine recognises in their places. It is trained on half of
  scikit-learn's real digits and knows nothing of the model; the other half tells how good it is itself.
* canvases: the share of samples with all their digits right.
* outside: mean brightness of the pixels where the caption puts no digit, over that of the pixels where it puts one.

On canvases with room to spare a digit is looked for at all shifts that the data set makes, and taken where the machine is surest.
"""

import argparse

import numpy as np

from binlatent.console import decimals, say, script
from binlatent.data.sources.captioned_digits import LAYOUTS, SIDE, Canvas, CaptionedDigits
from binlatent.errors import UserError
from binlatent.experiment import Experiment
from binlatent.images import to_uint8
from binlatent.machines.digits import classifier
from binlatent.pipeline import Pipeline

COLUMNS = ("positions", "canvases", "outside")


def canvases(num: int, *, held_out: bool, seed: int) -> list[Canvas]:
    """Random canvases, all of combinations that are held out of training, or all of such that are not."""
    rng, found = np.random.default_rng([seed, held_out]), []
    while len(found) < num:
        layout = LAYOUTS[rng.integers(len(LAYOUTS))]
        canvas = Canvas(rows=tuple(tuple(rng.integers(10, size=count).tolist()) for count in layout))
        if canvas.held_out == held_out:
            found.append(canvas)
    return found


def prompts(drawn: list[Canvas]) -> list[str]:
    """One caption of each canvas, its two in turn."""
    return [canvas.captions[i % 2] for i, canvas in enumerate(drawn)]


def places(canvas: Canvas, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of every digit of an image (h, w) at all its shifts, (m, shifts, 64) in [0, 16], and where they lie, bool
    (h, w)."""
    room, found, inside = (len(image) // 2 - SIDE) // 2, [], np.zeros(image.shape, bool)
    for y, x in canvas.corners(len(image)):
        shifts = [(y + i, x + j) for i in range(-room, room + 1) for j in range(-room, room + 1)]
        found.append([image[a : a + SIDE, b : b + SIDE].ravel() / 255 * 16 for a, b in shifts])
        inside[y - room : y + SIDE + room, x - room : x + SIDE + room] = True
    return np.asarray(found), inside


def recognised(digits: np.ndarray) -> np.ndarray:
    """The classes (m,) of digits (m, shifts, 64): at the shift where the machine is surest."""
    model = classifier()[0]
    surety = model.decision_function(digits.reshape(-1, digits.shape[-1])).reshape(*digits.shape[:2], -1)
    best = surety.max(-1).argmax(-1)
    return model.classes_[surety[np.arange(len(digits)), best].argmax(-1)]


def score_images(images: np.ndarray, drawn: list[Canvas]) -> dict[str, float]:
    """The scores (`COLUMNS`) of images (n, h, w, 1), each of a canvas."""
    digits, asked, owner, brightness = [], [], [], []
    for i, (image, canvas) in enumerate(zip(to_uint8(images)[..., 0], drawn, strict=True)):
        found, inside = places(canvas, image)
        digits.append(found)
        asked += [digit for row in canvas.rows for digit in row]
        owner += [i] * len(found)
        brightness.append([image[~inside].sum() / max(1, (~inside).sum()), image[inside].mean()])
    right = recognised(np.concatenate(digits)) == np.asarray(asked)
    wrong = np.bincount(np.asarray(owner)[~right], minlength=len(drawn))
    outside, inside = np.mean(brightness, axis=0)
    return {
        "positions": float(right.mean()),
        "canvases": float((wrong == 0).mean()),
        "outside": float(outside / max(inside, 1e-9)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--guidance", type=decimals, default="0,1,2")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--num", type=int, default=1000, help="captions of each kind")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--student", action="store_true", help="score the prior's student")
    args = parser.parse_args()
    model = Pipeline.load(args.workdir, batch_size=250, student=args.student)
    say(f"accuracy of the support vector machine on held-out digits: {classifier()[1]:.4f}")
    say(f"| combinations | guidance | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")

    def row(kind: str, guidance: str, images: np.ndarray, drawn: list[Canvas]) -> None:
        found = score_images(images, drawn)
        say(f"| {kind} | {guidance} | " + " | ".join(f"{found[name]:.3f}" for name in COLUMNS) + " |")

    source = Experiment.open(args.workdir).splits().validation
    if not isinstance(source, CaptionedDigits):
        raise UserError(f"{args.workdir} is of {source!r}: a run of the data source 'captioned_digits' is expected")
    real = [(source[i]["image"], source.canvas(i)) for i in range(min(args.num, len(source)))]
    images = np.stack([image for image, _ in real])
    row("validation images", "", images, [canvas for _, canvas in real])
    row("their reconstructions", "", model.reconstruct(images), [canvas for _, canvas in real])
    for kind in ("trained", "held out"):
        drawn = canvases(args.num, held_out=kind == "held out", seed=args.seed)
        for guidance in args.guidance:
            options = {"guidance": guidance, "steps": args.steps}
            row(
                kind,
                f"{guidance:g}",
                model.sample(seed=args.seed, num=args.num, prompts=prompts(drawn), **options),
                drawn,
            )


if __name__ == "__main__":
    script(main)
