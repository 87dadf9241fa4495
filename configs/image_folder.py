"""Your own images, at any resolution: a folder of images, flat or with one sub-folder per class.

    binlatent run --config image_folder --config.data.path=DIR --workdir runs/mine
    binlatent run --config image_folder:128 --config.data.path=DIR --workdir runs/mine128

The number after the colon is the resolution in pixels to which images are cropped and resized (default: 32). Sub-folders are
classes; `--config.data.labels=False` ignores them. Meant for at least one GPU; the full config has not been run. For a CPU there
is a variant with narrow networks and fewer steps, `image_folder:64,small`: on 3,953 emojis of 64×64 pixels it takes 50 minutes on
two cores and gives 25.2 dB PSNR on held-out pictures, no dead bits and 0.21 bits per bit (docs/autoencoder.md).
"""

import math

from binlatent.config import defaults

MULTIPLIERS = (1, 1, 1, 2, 2, 4)  # of the width, from the image's resolution down


def halvings(side: int) -> int:
    """How often the image is halved: to a code of about 8×8 for up to 64 pixels, 16×16 for up to 256, 32×32 above."""
    target = 8 if side <= 64 else 16 if side <= 256 else 32
    count = 0
    while side % 2 ** (count + 1) == 0 and side // 2**count > target:
        count += 1
    if side < 1 or side // 2**count > target + target // 4 or count >= len(MULTIPLIERS):
        step = 16 if side <= 512 else 32
        near = max(1, round(side / step)) * step
        raise ValueError(
            f"images of {side}×{side} pixels cannot be halved to a small code: use a multiple of {step}, such as {near}"
        )
    return count


def get_config(argument: str = "32"):
    side, _, size = argument.partition(",")
    if not side.isdecimal() or size not in ("", "small"):
        raise ValueError(
            f"image_folder:{argument}: the resolution in pixels is expected, optionally followed by ',small'"
        )
    side, small = int(side), size == "small"
    config = defaults()
    config.data.source = "folder"
    config.data.resolution = side
    config.data.flip = True

    count = halvings(side)
    config.autoencoder.channel_multipliers = MULTIPLIERS[-1 - count :]
    config.autoencoder.attention_resolutions = (side // 2**count,)
    config.autoencoder.code_bits = 32
    config.autoencoder_optimizer.learning_rate = 2e-4
    config.autoencoder_optimizer.warmup_steps = 500
    config.autoencoder_optimizer.schedule = "cosine"
    config.autoencoder_training.num_steps = 50_000
    config.autoencoder_training.batch_size = 64
    config.autoencoder_training.evaluate_batches = 16

    config.codes.flips = True
    config.prior.width = 384
    config.prior.depth = 12
    config.prior.heads = 6
    config.prior_optimizer.learning_rate = 3e-4
    config.prior_optimizer.warmup_steps = 1000
    config.prior_optimizer.schedule = "cosine"
    config.prior_optimizer.weight_decay = 0.01
    config.prior_training.num_steps = 100_000
    config.prior_training.batch_size = 128
    config.prior_training.evaluate_batches = 16

    config.sampling.steps = 32
    config.sampling.guidance = 1.0
    if small:
        _shrink(config, side)
    return config


def _shrink(config, side: int) -> None:
    """For a CPU, on which convolutions on many pixels are slow: patches of 4×4 pixels are channels, and all convolutions are
    at a quarter of the resolution. Tokens are large, so that the prior has few of them: 4×4 for 32 and for 64 pixels.
    """
    positions = side // 4
    config.autoencoder.patch_size = 4
    config.autoencoder.channels = 128
    config.autoencoder.channel_multipliers = (1,)
    config.autoencoder.attention_resolutions = ()
    config.autoencoder.code_bits = 32 if side < 64 else 16
    config.autoencoder.token_size = math.gcd(positions, 2 if side < 64 else 4)
    config.autoencoder.embedding_width = 128
    config.autoencoder_loss.l2.weight = 2.0
    config.autoencoder_optimizer.learning_rate = 1e-3
    config.autoencoder_optimizer.warmup_steps = 100
    config.autoencoder_optimizer.ema_decay = 0.99
    config.autoencoder_training.num_steps = 4000
    config.autoencoder_training.batch_size = max(8, 512 // side)
    config.prior.width = 256
    config.prior.depth = 8
    config.prior.heads = 8
    config.prior_optimizer.learning_rate = 1e-3
    config.prior_optimizer.warmup_steps = 200
    config.prior_training.num_steps = 3500
    config.prior_training.batch_size = 32
