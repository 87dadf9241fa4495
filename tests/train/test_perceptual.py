"""The perceptual losses around their networks; the networks themselves are compared in tests/nets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.train import perceptual
from tests.torch_nets import torch_and


class Flatten:
    """In place of ResNet-50: its logits are what it is shown."""

    def __init__(self, dtype):
        pass

    def apply(self, variables, images):
        return images.reshape(images.shape[0], -1)


@pytest.mark.parametrize("size", [(32, 32), (65, 47), (300, 260)])
def test_resnet_loss_resizes_as_maskbit_does_forward_and_gradient(monkeypatch, size):
    torch, functional = torch_and("torch.nn.functional")
    monkeypatch.setattr(perceptual, "ResNet50", Flatten)
    a, b = np.random.default_rng(0).random((2, 2, *size, 3)).astype(np.float32)
    x, y = (torch.tensor(v.transpose(0, 3, 1, 2), requires_grad=True) for v in (a, b))
    x_small, y_small = (
        functional.interpolate(v, size=224, mode="bilinear", antialias=True, align_corners=False) for v in (x, y)
    )
    expected = functional.mse_loss(x_small, y_small, reduction="none").mean((1, 2, 3))
    expected.sum().backward()

    def ours(a):
        each = perceptual.resnet50({}, a, jnp.asarray(b))
        return each.sum(), each

    (_, each), gradient = jax.jit(jax.value_and_grad(ours, has_aux=True))(jnp.asarray(a))
    np.testing.assert_allclose(each, expected.detach().numpy(), rtol=1e-5)
    theirs = x.grad.numpy().transpose(0, 2, 3, 1)
    # the resize's weights are themselves rounded: torch and JAX differ by 2e-5 where 300 pixels become 224
    np.testing.assert_allclose(gradient / abs(theirs).max(), theirs / abs(theirs).max(), atol=5e-5)


def test_every_loss_has_weights_that_can_be_converted():
    from binlatent.convert.features import FEATURES

    assert set(perceptual.LOSSES) <= set(FEATURES)
