"""OpenMoji's 3,953 emojis from their names, such as "woman firefighter medium skin tone", 32×32 in colour.

    pip install -e ".[emoji]"
    binlatent run --config emoji --workdir runs/emoji
    binlatent sample --workdir runs/emoji --prompt "woman firefighter medium skin tone" --prompt "red heart"

`--config emoji:64` has 64×64 pixels. Some combinations of a person and a skin tone are held out of training, by the rule in
`data/sources/emoji.py`: of the persons that come in all five single tones, in alphabetical order, number i is not trained on
in tone i mod 10, where that is below 5. Emojis designed by OpenMoji, licence CC BY-SA 4.0.

Run twice, on two cores: the autoencoder takes 14 minutes and gives 24.6 dB PSNR on held-out pictures and no dead bits; the prior
takes 77 minutes. It then draws nearly all trained names, and held-out combinations in the right tone in nearly nine of ten cases:
docs/text.md.
"""

from binlatent.config import defaults

# Shown during training; those of the last row are held out of it.
PROMPTS = (
    "french fries", "rose", "watermelon", "strawberry", "mushroom", "cactus", "sun", "rainbow",
    "cat face", "dog face", "panda", "octopus", "butterfly", "soccer ball", "rocket", "sailboat",
    "Japan", "Brazil", "United Kingdom", "check mark button", "woman firefighter medium skin tone",
    "woman firefighter dark skin tone", "waving hand medium skin tone", "thumbs up dark skin tone",
    "man cook light skin tone", "thumbs down light skin tone", "mage light skin tone", "man swimming medium light skin tone",
    "man astronaut medium dark skin tone", "woman farmer medium dark skin tone", "victory hand medium dark skin tone",
    "pilot dark skin tone",
)  # fmt: skip


def get_config(argument: str = "32"):
    side = int(argument)
    if side not in (32, 64):
        raise ValueError(f"emoji:{argument}: the side in pixels is 32 or 64")
    config = defaults()
    config.data.source = "emoji"
    config.data.captions = "own"
    config.data.resolution = side
    config.text.prompts = PROMPTS
    config.plan.words = 2002
    config.plan.caption_words = 13

    # Patches of 4×4 pixels are channels, so that all convolutions are at 8×8 (16×16 for 64 pixels).
    config.autoencoder.patch_size = 4
    config.autoencoder.channels = 128
    config.autoencoder.channel_multipliers = (1,)
    config.autoencoder.res_blocks = 2
    config.autoencoder.attention_resolutions = ()
    config.autoencoder.code_bits = 32
    config.autoencoder.token_size = 2  # 4×4 tokens of 128 bits (docs/autoencoder.md)
    config.autoencoder.embedding_width = 128
    config.autoencoder_loss.l2.weight = 2.0  # most of a picture is white, to which l1 alone pulls every pixel at first
    config.autoencoder_optimizer.learning_rate = 1e-3
    config.autoencoder_optimizer.schedule = "cosine"
    config.autoencoder_optimizer.warmup_steps = 100
    config.autoencoder_optimizer.ema_decay = 0.99
    config.autoencoder_training.num_steps = 4000
    config.autoencoder_training.batch_size = 16
    config.autoencoder_training.evaluate_every = 1000
    config.autoencoder_training.checkpoint_every = 500

    config.prior.width = 256
    config.prior.depth = 8
    config.prior.heads = 8
    config.prior_optimizer.learning_rate = 1e-3
    config.prior_optimizer.schedule = "cosine"
    config.prior_optimizer.warmup_steps = 200
    config.prior_optimizer.weight_decay = 0.05
    config.prior_training.num_steps = 5500
    config.prior_training.batch_size = 64
    config.prior_training.evaluate_every = 1000
    config.prior_training.checkpoint_every = 500
    config.sampling.guidance = 1.0
    return config
