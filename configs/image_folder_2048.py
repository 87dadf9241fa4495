"""Your own images at 2048×2048 pixels, 64×64×64 = 262,144 bits per image, all sampled jointly.

    binlatent convert-features lpips
    binlatent run --config image_folder_2048 --config.data.path=DIR --workdir runs/mine2048

DIR holds image files of at least 2048 pixels, flat or in sub-folders. `ffhq_1024` with four times the tokens: 4×4 pixels are
folded into channels, so that the largest feature maps are 512×512 as there, and there is one level less. Batches are half of
that config's for the autoencoder and a quarter for the prior. The paper stops at 1024×1024. Meant for a slice v5p:2x2x2 of TPUs
or 8 devices of 80 GB; it has not been run, and docs/tpu.md lists what was compiled for it.
"""

from binlatent.config import load


def get_config(recipe: str = "paper"):
    config = load(f"ffhq_1024:{recipe}")
    config.data.resolution = 2048
    config.autoencoder.patch_size = 4
    config.autoencoder.channel_multipliers = (1, 1, 2, 4)
    config.autoencoder.attention_resolutions = ()
    config.autoencoder_training.batch_size = 16
    config.prior_training.batch_size = 32
    return config
