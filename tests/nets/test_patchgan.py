import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.nets.patchgan import PatchGAN

IMAGES = jax.random.uniform(jax.random.key(0), (4, 32, 32, 3))


@pytest.mark.parametrize("norm", ["group", "spectral", "none"])
def test_an_image_s_logits_depend_on_it_alone(norm):
    net = PatchGAN(channels=8, layers=3, norm=norm)
    variables = net.init(jax.random.key(1), IMAGES)

    def discriminate(images):
        return net.apply(variables, images, train=True, mutable=["batch_stats"])[0]

    logits = discriminate(IMAGES)
    assert logits.shape == (4, 4, 4, 1)
    np.testing.assert_allclose(logits[1:2], discriminate(IMAGES[1:2]), atol=1e-6)


def test_spectral_norm_bounds_the_kernels_and_learns_from_no_image():
    net = PatchGAN(channels=8, layers=1, norm="spectral")
    variables = net.init(jax.random.key(1), IMAGES)
    statistics = variables["batch_stats"]
    for _ in range(50):
        _, moved = net.apply({**variables, "batch_stats": statistics}, IMAGES, train=True, mutable=["batch_stats"])
        _, other = net.apply({**variables, "batch_stats": statistics}, 1 - IMAGES, train=True, mutable=["batch_stats"])
        assert all(map(np.array_equal, jax.tree.leaves(moved), jax.tree.leaves(other)))
        statistics = moved["batch_stats"]
    kernel = np.asarray(variables["params"]["conv0"]["kernel"])
    largest = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
    np.testing.assert_allclose(statistics["conv0_spectral"]["conv0/kernel/sigma"], largest, rtol=1e-3)


def test_bf16_keeps_float32_logits():
    net = PatchGAN(channels=8, layers=2, dtype=jnp.bfloat16)
    assert net.init_with_output(jax.random.key(1), IMAGES)[0].dtype == jnp.float32


def test_unknown_norms_are_refused():
    with pytest.raises(Exception, match=r"batch|norm"):
        PatchGAN(norm="batch")
