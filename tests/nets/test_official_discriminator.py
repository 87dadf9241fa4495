import jax
import jax.numpy as jnp
import numpy as np

from binlatent.nets.official_discriminator import PatchDiscriminator


def test_statistics_are_updated_in_training_only():
    net = PatchDiscriminator(channels=8, layers=2)
    images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 3))
    variables = jax.jit(net.init)(jax.random.key(1), images)
    logits = jax.jit(net.apply)(variables, images)
    assert logits.shape == (4, 6, 6, 1) and logits.dtype == jnp.float32
    train = jax.jit(lambda v: net.apply(v, images, train=True, mutable=["batch_stats"]))
    trained, moved = train(variables)
    assert jnp.abs(trained - logits).max() > 1e-3
    # momentum of 0.9: a tenth of the batch's mean
    mean = moved["batch_stats"]["norm1"]["mean"]
    again = train({**variables, **moved})[1]
    np.testing.assert_allclose(again["batch_stats"]["norm1"]["mean"], 1.9 * mean, rtol=1e-3, atol=1e-6)


def test_widths_double_up_to_eight_times():
    assert PatchDiscriminator(channels=64, layers=4).widths == (64, 128, 256, 512, 512)
