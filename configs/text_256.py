"""Text to image, 256×256 pixels, 16×16×64 = 16,384 bits per image, from embeddings that you have computed.

    binlatent convert-features lpips
    binlatent run --config text_256 --config.data.path=DIR --workdir runs/text

DIR holds `name.jpg` and `name.npy` for each image. The array is either one CLIP vector (d,), which is added to the time
embedding, or the tokens of a text encoder such as T5, (n, d), all padded to the same n, which are read by cross-attention.
The pairs may also be in tar files (`--config.data.source=shards`). To sample,
embed a text with the same encoder and give the array (`--condition x.npy`), or say which encoder that was
(`--config.text.encoder=clip:NAME`) and give `--prompt`. With captions in place of embeddings nothing has to be computed first:
docs/text.md.

Like `imagenet_256`, which has the sources of the numbers; for guidance, a tenth of the conditions are dropped in training.
Meant for 8 devices of 80 GB, or a slice v6e:2x4 of TPUs; hours and scores have not been measured.
"""

from binlatent.config import load


def get_config(recipe: str = "paper"):
    config = load(f"imagenet_256:{recipe}")
    config.data.source = "folder"
    config.data.name = ""
    config.data.validation_split = ""
    config.data.validation_fraction = 0.01
    config.data.labels = False
    config.plan.num_classes = 0
    config.plan.condition_shape = (77, 1024)  # tokens and features of the text encoder
    config.data.embeddings = "npy"
    config.data.flip = False  # a caption may say left or right
    config.codes.flips = False
    config.sampling.guidance_power = 0.0
    return config
