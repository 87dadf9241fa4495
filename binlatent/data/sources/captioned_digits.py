"""Two to four of scikit-learn's handwritten digits on one canvas, with captions that describe the layout.

Layouts: two digits side by side or one above the other, one above two, two above one, and two above two. On a canvas
larger than 16 pixels, every digit is shifted at random.

Two things are held out of training, so that validation tests generalisation:

* some of the handwritten digits (`data.validation_fraction`, by hash, see `held_out`);
* the pairs (a, b) with 3a + b divisible by 10, side by side, or of just two digits one above the other: (0, 0), (1, 7),
  (2, 4), (3, 1), (4, 8), (5, 5), (6, 2), (7, 9), (8, 6), (9, 3). Each digit is seen in each position with nine others.

Every other validation canvas, beginning with the first, has a held-out pair.
"""

import dataclasses

import numpy as np

from binlatent.data.options import DataOptions
from binlatent.data.sources.base import Example, ImageSource, Opened, held_out
from binlatent.errors import UserError
from binlatent.files import digest

TRAINING, VALIDATION = 20_000, 1_000  # canvases
LAYOUTS = ((2,), (1, 1), (1, 2), (2, 1), (2, 2))  # digits in each row, from the top
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 8  # height = width of a digit, in pixels
_VERSION = "1"  # of the canvases; part of the data set's fingerprint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canvas:
    """The layout: `rows` of digits from the top, such as ((7, 1), (3,)) for a seven and a one above a three."""

    rows: tuple[tuple[int, ...], ...]

    @property
    def held_out(self) -> bool:
        """Whether training never sees this combination."""
        pairs = [row for row in self.rows if len(row) == 2]
        if [len(row) for row in self.rows] == [1, 1]:
            pairs.append((self.rows[0][0], self.rows[1][0]))
        return any((3 * a + b) % 10 == 0 for a, b in pairs)

    @property
    def captions(self) -> tuple[str, ...]:
        """Two captions of the canvas."""
        named = [[("an " if digit == 8 else "a ") + WORDS[digit] for digit in row] for row in self.rows]
        if len(named) == 1:
            left, right = named[0]
            return f"{left} to the left of {right}", f"{right} to the right of {left}"
        top, bottom = (" and ".join(row) for row in named)
        return f"{top} above {bottom}", f"{bottom} below {top}"

    def corners(self, resolution: int) -> tuple[tuple[int, int], ...]:
        """(y, x) of the top left pixel of every digit, row by row, before the random shifts."""
        cell = resolution // 2
        inside = (cell - SIDE) // 2
        tops = [0, cell] if len(self.rows) == 2 else [cell // 2]
        return tuple(
            (top + inside, left + inside)
            for top, row in zip(tops, self.rows, strict=True)
            for left in ([0, cell] if len(row) == 2 else [cell // 2])
        )


class CaptionedDigits(ImageSource):
    """Canvases, composed when they are read: example i is a function of (seed, part, i)."""

    def __init__(
        self, part: str, digits: np.ndarray, targets: np.ndarray, *, resolution: int, seed: int, captions: bool
    ):
        """Args:
        part: `train` or `validation`.
        digits: uint8 (n, 8, 8), the handwritten digits to use.
        targets: their classes (n,).
        resolution: of the canvas, in pixels.
        seed: of the canvases.
        captions: whether examples have captions.
        """
        super().__init__()
        self._part, self._digits, self._captions = part, digits, captions
        self._by_class = [np.flatnonzero(targets == digit) for digit in range(10)]
        self._resolution, self._seed = resolution, seed

    def __len__(self) -> int:
        return TRAINING if self._part == "train" else VALIDATION

    def __repr__(self) -> str:
        return f"CaptionedDigits({self._part!r}, {len(self)} images)"

    def canvas(self, index: int) -> Canvas:
        """The canvas of example `index`."""
        return self._draw(index)[0]

    def _draw(self, index: int) -> tuple[Canvas, np.random.Generator]:
        rng = np.random.default_rng([self._seed, 0xD161, self._part == "train", index])
        wanted = self._part == "validation" and index % 2 == 0
        while True:
            layout = LAYOUTS[rng.integers(len(LAYOUTS))]
            canvas = Canvas(rows=tuple(tuple(rng.integers(10, size=count).tolist()) for count in layout))
            if canvas.held_out == wanted:
                return canvas, rng

    def read(self, index: int) -> Example:
        canvas, rng = self._draw(index)
        image = np.zeros((self._resolution, self._resolution, 1), np.uint8)
        room = (self._resolution // 2 - SIDE) // 2
        digits = [digit for row in canvas.rows for digit in row]
        for digit, corner in zip(digits, canvas.corners(self._resolution), strict=True):
            y, x = np.asarray(corner) + rng.integers(-room, room + 1, size=2)
            image[y : y + SIDE, x : x + SIDE, 0] = self._digits[rng.choice(self._by_class[digit])]
        return {"image": image} | ({"caption": canvas.captions} if self._captions else {})


def open_captioned_digits(options: DataOptions, seed: int) -> Opened:
    """Opens 20,000 canvases for training and 1,000 for validation, of other handwritten digits, half with held-out pairs.

    Raises:
      UserError: `validation_split` is set, or the canvas is too small for two digits side by side.
    """
    from sklearn.datasets import load_digits

    if options.validation_split:
        raise UserError(
            f"data.validation_split='{options.validation_split}': source 'captioned_digits' has no named splits; leave "
            "it empty and set data.validation_fraction."
        )
    if options.resolution < 2 * SIDE:
        raise UserError(
            f"data.resolution={options.resolution}: two digits side by side need at least {2 * SIDE} pixels."
        )
    dataset = load_digits()
    digits = np.round(dataset.images * (255 / 16)).astype(np.uint8)
    mask = held_out(len(digits), options.validation_fraction, seed)

    def part(name: str, chosen: np.ndarray) -> CaptionedDigits:
        if missing := set(range(10)) - set(dataset.target[chosen].tolist()):
            raise UserError(
                f"data.validation_fraction={options.validation_fraction}: no handwritten {WORDS[min(missing)]} is left "
                f"for the {name} split; give a fraction nearer to 0.5."
            )
        return CaptionedDigits(
            name, digits[chosen], dataset.target[chosen], resolution=options.resolution, seed=seed,
            captions=bool(options.captions),
        )  # fmt: skip

    identity = digest("captioned_digits", _VERSION, digits, str(options.resolution))
    return Opened(train=part("train", ~mask), validation=part("validation", mask), class_names=(), identity=identity)
