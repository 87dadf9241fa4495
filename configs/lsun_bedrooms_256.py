"""LSUN bedrooms (3 million photographs), 256×256 pixels, 16×16×32 = 8,192 bits per image.

    tfds build lsun/bedroom --file_format=array_record
    binlatent convert-features lpips
    binlatent run --config lsun_bedrooms_256 --workdir runs/bedrooms

Like `lsun_churches_256`, which has the sources of the numbers; with 24 times as many images, so both stages run longer, and
codes of mirrored images are not needed. Meant for 8 devices of at least 32 GB, or a slice v5e:2x4 of TPUs; hours and scores
have not been measured.
"""

from binlatent.config import load


def get_config(recipe: str = "paper"):
    config = load(f"lsun_churches_256:{recipe}")
    config.data.name = "lsun/bedroom"
    config.data.validation_fraction = 0.002
    config.autoencoder_training.num_steps = 500_000
    config.codes.flips = False
    config.prior_training.num_steps = 800_000
    return config
