"""Binary Latent Diffusion (Wang et al., CVPR 2023) in JAX and Flax."""

__version__ = "0.2.0"


def load(path, **options):
    """Opens a trained model, a work directory or a packed file: a `binlatent.pipeline.Pipeline` (see `Pipeline.load`)."""
    from binlatent.pipeline import Pipeline

    return Pipeline.load(path, **options)
