"""FFHQ (70 thousand faces) at 256×256 pixels, 16×16×32 = 8,192 bits per image.

    binlatent convert-features lpips
    binlatent run --config ffhq_256 --config.data.path=DIR --workdir runs/ffhq

DIR holds the image files, of at least 256 pixels (they are resized). Like `lsun_churches_256`, which has the sources of the
numbers; with half as many images, so the prior is regularised and both stages stop earlier. Meant for 8 devices of at least
32 GB, or a slice v5e:2x4 of TPUs; hours and scores have not been measured.
"""

from binlatent.config import load


def get_config(recipe: str = "paper"):
    config = load(f"lsun_churches_256:{recipe}")
    config.data.source = "folder"
    config.data.name = ""
    config.data.labels = False
    config.autoencoder_training.num_steps = 250_000
    config.prior_optimizer.weight_decay = 0.05
    config.prior_training.num_steps = 400_000
    return config
