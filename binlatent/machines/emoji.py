"""Whether emojis have the skin tone of their prompts, and whether samples are copies of training images.

    python -m binlatent.machines.emoji runs/emoji --guidance 0,1,2 --out runs/emoji/samples

Of every person that OpenMoji draws in all five tones, the five pictures show which pixels are skin: those that differ. An
image has the tone whose picture is nearest in mean colour over these pixels. The table gives the share of images with the
tone of their prompt, for combinations of person and tone in the training set and for those that the rule of
`data/sources/emoji.py` holds out of it; what is held out by hash is in neither. Its last
column is the share of images that are nearer to the picture of their prompt than to any other of the set, in mean squared
difference; there it also has the other emojis of the training set.

`--out` is a folder for two pictures: `prompts.png`, one sample of each of the config's prompts, and `nearest.png`,
eight of the samples, four of them of held-out combinations, each above the training image that is nearest in mean squared
difference.
"""

import argparse
import dataclasses
import pathlib

import numpy as np

from binlatent import config as config_lib
from binlatent.console import decimals, say, script
from binlatent.data.sources.emoji import TONES, held_out_tones, load_emoji, person_and_tone
from binlatent.errors import UserError
from binlatent.experiment import Experiment
from binlatent.images import captioned_grid, comparison_grid, save_image, to_uint8
from binlatent.pipeline import Pipeline

SKIN = 16  # levels of 255 by which a skin pixel differs between tones, at least


@dataclasses.dataclass(frozen=True, kw_only=True)
class Person:
    """A person that comes in all five tones.

    Attributes:
      names: of its pictures, in the order of `TONES`.
      images: its pictures, uint8 (5, h, w, 3).
      held_out: which of them the rule holds out of training, (5,).
      trained: which of them are in the training set, (5,).
    """

    names: tuple[str, ...]
    images: np.ndarray
    held_out: tuple[bool, ...]
    trained: tuple[bool, ...]

    def tone(self, image: np.ndarray) -> int:
        """The index of the tone that an image uint8 (h, w, 3) of this person has."""
        skin = np.ptp(self.images.astype(int), axis=0).max(-1) >= SKIN
        distance = self.images[:, skin].mean(1) - image[skin].mean(0)
        return int(np.square(distance).sum(-1).argmin())


def persons(images: np.ndarray, names: list[str], training: set[str]) -> list[Person]:
    """All persons in five tones whose pictures show a difference, sorted by name.

    Args:
      training: the names of the training set.
    """
    place, out = {name: i for i, name in enumerate(names)}, held_out_tones(names)
    found = []
    for person in sorted({pair[0] for pair in map(person_and_tone, names) if pair}):
        rows = [place.get(" ".join([*person.split(), tone, "skin tone"])) for tone in TONES]
        if None in rows:
            continue
        one = Person(
            names=tuple(names[i] for i in rows),
            images=images[rows],
            held_out=tuple(bool(out[i]) for i in rows),
            trained=tuple(names[i] in training for i in rows),
        )
        if [one.tone(image) for image in one.images] == list(range(len(TONES))):
            found.append(one)
    return found


def chosen(people: list[Person], num: int, *, held_out: bool, seed: int) -> list[tuple[Person, int]]:
    """At most `num` random pairs of a person and the index of a tone, all held out by the rule, or all in the training set."""
    wanted = [(person, person.held_out if held_out else person.trained) for person in people]
    pairs = [(person, i) for person, which in wanted for i, yes in enumerate(which) if yes]
    order = np.random.default_rng(seed).permutation(len(pairs))[:num]
    return [pairs[i] for i in order]


def accuracy(pairs: list[tuple[Person, int]], images: np.ndarray) -> float:
    """The share of images (n, h, w, 3) that have the tone of their pair."""
    return float(np.mean([person.tone(image) == i for (person, i), image in zip(pairs, to_uint8(images), strict=True)]))


def nearest(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The image of uint8 (m, h, w, 3) nearest to each image (n, h, w, 3) in mean squared difference."""
    rows = known.reshape(len(known), -1).astype(np.float32)
    found = [np.square(rows - image.reshape(-1)).sum(-1).argmin() for image in to_uint8(images).astype(np.float32)]
    return known[found]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """Prompts of one kind.

    Attributes:
      kind: its name in the table.
      names: the prompts, names of pictures.
      images: the pictures of these names, uint8 (n, h, w, 3).
      pairs: the person and the index of the tone of each; empty where names have no tone.
    """

    kind: str
    names: list[str]
    images: np.ndarray
    pairs: list[tuple[Person, int]] = dataclasses.field(default_factory=list)

    def row(self, guidance: str, made: np.ndarray, every: np.ndarray) -> str:
        """The table's row of images `made` (n, h, w, 3) for the prompts, beside all pictures of the set."""
        tone = f"{accuracy(self.pairs, made):.3f}" if self.pairs else ""
        right = (nearest(made, every) == self.images).all((1, 2, 3)).mean()
        return f"| {self.kind} | {guidance} | {len(made)} | {tone} | {right:.3f} |"


def wanted(every: np.ndarray, names: list[str], train: list[dict], *, num: int, seed: int) -> list[Wanted]:
    """At most `num` combinations of the training set, of those that are held out, and other emojis of the training set."""
    people, kinds = persons(every, names, {record["caption"][0] for record in train}), []
    for kind, held_out in (("trained", False), ("held out", True)):
        pairs = chosen(people, num, held_out=held_out, seed=seed)
        pictures = np.stack([person.images[i] for person, i in pairs])
        kinds.append(Wanted(kind=kind, names=[p.names[i] for p, i in pairs], images=pictures, pairs=pairs))
    others = [record for record in train if "skin tone" not in record["caption"][0]]
    others = [others[i] for i in np.random.default_rng(seed).permutation(len(others))[:num]]
    captions, pictures = [record["caption"][0] for record in others], np.stack([record["image"] for record in others])
    return [*kinds, Wanted(kind="others, trained", names=captions, images=pictures)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--guidance", type=decimals, default="0,1,2")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--num", type=int, default=500, help="most combinations of each kind")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", help="folder for pictures")
    args = parser.parse_args(arguments)
    experiment = Experiment.open(args.workdir)
    data, text = config_lib.build_data(experiment.config), config_lib.build_text(experiment.config)
    if data.source != "emoji":
        raise UserError(f"{args.workdir} was trained on data.source={data.source!r}: 'emoji' is expected")
    model, (every, names) = Pipeline.load(args.workdir), load_emoji(data.resolution)
    source = experiment.splits().train
    train = [source[i] for i in range(len(source))]
    say("| combinations | guidance | images | tone right | picture nearest |\n|---|---|---|---|---|")
    shown = []  # samples of persons
    for kind in wanted(every, names, train, num=args.num, seed=args.seed):
        reconstructed = dataclasses.replace(kind, kind=f"{kind.kind}, reconstructions")
        say(reconstructed.row("", model.reconstruct(kind.images), every))
        for guidance in args.guidance:
            options = {"guidance": guidance, "steps": args.steps}
            samples = model.sample(seed=args.seed, num=len(kind.names), prompts=kind.names, **options)
            say(kind.row(f"{guidance:g}", samples, every))
        shown += list(samples[:4]) if kind.pairs else []
    if args.out:
        folder, some = pathlib.Path(args.out), np.stack(shown)
        training = np.stack([record["image"] for record in train])
        save_image(folder / "nearest.png", comparison_grid(some, nearest(some, training)))
        if text.prompts:
            num = len(text.prompts)
            images = model.sample(seed=args.seed, num=num, prompts=text.prompts, steps=args.steps)
            save_image(folder / "prompts.png", captioned_grid(images, text.prompts, columns=8))
        say(f"pictures: {folder}")


if __name__ == "__main__":
    script(main)
