"""Whether emojis have the skin tone of their prompts, and whether samples are copies of training images.

    python -m binlatent.machines.emoji runs/emoji --guidance 0,1,2 --out runs/emoji/samples

Of every person that OpenMoji draws in all five tones, the five pictures show which pixels are skin: those that differ. An
image has the tone whose picture is nearest in mean colour over these pixels. The table gives the share of images with the
tone of their prompt, for combinations of person and tone in the training set and for those that are held out of it.

`--out` is a folder for two pictures, `prompts.png` with one sample of each of the config's prompts, and `nearest.png` with
eight of the samples, four of them of held-out combinations, each above the training image that is nearest in mean squared
difference.
"""

import argparse
import dataclasses
import math
import pathlib

import numpy as np

from binlatent import config as config_lib
from binlatent.console import say
from binlatent.data.sources.emoji import TONES, held_out_tones, load_emoji, person_and_tone
from binlatent.errors import UserError
from binlatent.experiment import Experiment
from binlatent.images import comparison_grid, image_grid, save_image, to_uint8
from binlatent.pipeline import Pipeline

SKIN = 16  # levels of 255 by which a skin pixel differs between tones, at least


@dataclasses.dataclass(frozen=True, kw_only=True)
class Person:
    """A person that comes in all five tones.

    Attributes:
      names: of its pictures, in the order of `TONES`.
      images: its pictures, uint8 (5, h, w, 3).
      held_out: which of them are held out of training, (5,).
    """

    names: tuple[str, ...]
    images: np.ndarray
    held_out: tuple[bool, ...]

    def tone(self, image: np.ndarray) -> int:
        """The index of the tone that an image uint8 (h, w, 3) of this person has."""
        skin = np.ptp(self.images.astype(int), axis=0).max(-1) >= SKIN
        distance = self.images[:, skin].mean(1) - image[skin].mean(0)
        return int(np.square(distance).sum(-1).argmin())


def persons(images: np.ndarray, names: list[str]) -> list[Person]:
    """All persons in five tones whose pictures show a difference, sorted by name."""
    place, out = {name: i for i, name in enumerate(names)}, held_out_tones(names)
    found = []
    for person in sorted({pair[0] for pair in map(person_and_tone, names) if pair}):
        rows = [place.get(" ".join([*person.split(), tone, "skin tone"])) for tone in TONES]
        if None in rows:
            continue
        one = Person(
            names=tuple(names[i] for i in rows), images=images[rows], held_out=tuple(bool(out[i]) for i in rows)
        )
        if [one.tone(image) for image in one.images] == list(range(len(TONES))):
            found.append(one)
    return found


def chosen(people: list[Person], num: int, *, held_out: bool, seed: int) -> list[tuple[Person, int]]:
    """At most `num` random pairs of a person and the index of a tone, all held out of training or none."""
    pairs = [(person, i) for person in people for i, out in enumerate(person.held_out) if out == held_out]
    order = np.random.default_rng(seed).permutation(len(pairs))[:num]
    return [pairs[i] for i in order]


def accuracy(pairs: list[tuple[Person, int]], images: np.ndarray) -> float:
    """The share of images (n, h, w, 3) that have the tone of their pair."""
    return float(np.mean([person.tone(image) == i for (person, i), image in zip(pairs, to_uint8(images), strict=True)]))


def nearest(images: np.ndarray, training: np.ndarray) -> np.ndarray:
    """The training image (of uint8 (m, h, w, 3)) nearest to each image (n, h, w, 3)."""
    rows = training.reshape(len(training), -1).astype(np.float32)
    found = [np.square(rows - image.reshape(-1)).sum(-1).argmin() for image in to_uint8(images).astype(np.float32)]
    return training[found]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--guidance", default="0,1,2")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--num", type=int, default=500, help="most combinations of each kind")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", help="folder for pictures")
    args = parser.parse_args(arguments)
    experiment = Experiment.open(args.workdir)
    data, text = config_lib.build_data(experiment.config), config_lib.build_text(experiment.config)
    if data.source != "emoji":
        raise UserError(f"{args.workdir} was trained on data.source={data.source!r}: 'emoji' is expected")
    model, people = Pipeline.load(args.workdir), persons(*load_emoji(data.resolution))
    kinds = {
        "trained": chosen(people, args.num, held_out=False, seed=args.seed),
        "held out": chosen(people, args.num, held_out=True, seed=args.seed),
    }
    say("| combinations | guidance | images | tone right |\n|---|---|---|---|")

    def row(kind: str, guidance: str, images: np.ndarray) -> None:
        say(f"| {kind} | {guidance} | {len(images)} | {accuracy(kinds[kind.split(',')[0]], images):.3f} |")

    samples = {}
    for kind, pairs in kinds.items():
        row(f"{kind}, reconstructions", "", model.reconstruct(np.stack([person.images[i] for person, i in pairs])))
        for guidance in args.guidance.split(","):
            prompts = [person.names[i] for person, i in pairs]
            options = {"guidance": float(guidance), "steps": args.steps}
            samples[kind] = model.sample(seed=args.seed, num=len(pairs), prompts=prompts, **options)
            row(kind, guidance, samples[kind])
    if args.out:
        folder, train = pathlib.Path(args.out), experiment.splits().train
        training = np.stack([train[i]["image"] for i in range(len(train))])
        some = np.concatenate([images[:4] for images in samples.values()])
        save_image(folder / "nearest.png", comparison_grid(some, nearest(some, training)))
        if text.prompts:
            num = len(text.prompts)
            images = model.sample(seed=args.seed, num=num, prompts=text.prompts, steps=args.steps)
            save_image(folder / "prompts.png", image_grid(images, columns=math.ceil(math.sqrt(2 * num))))
        say(f"pictures: {folder}")


if __name__ == "__main__":
    main()
