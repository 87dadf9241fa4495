"""CelebA-HQ (30 thousand faces) at 1024×1024 pixels, 32×32×64 = 65,536 bits per image.

    binlatent convert-features lpips
    binlatent run --config celebahq_1024 --config.data.path=DIR --workdir runs/celebahq

DIR holds the image files. Like `ffhq_1024`, which has the sources of the numbers; with fewer than half as many images, so
both stages stop earlier and the discriminator's input is augmented. Meant for 8 devices of 80 GB, or a slice v5p:2x2x2 of TPUs;
hours and scores have not been measured.
"""

from binlatent.config import load


def get_config(recipe: str = "paper"):
    config = load(f"ffhq_1024:{recipe}")
    config.data.validation_fraction = 0.03
    config.discriminator_augmentation.color = 0.5
    config.discriminator_augmentation.translation = 0.125
    config.autoencoder_training.num_steps = 200_000
    config.prior_training.num_steps = 300_000
    return config
