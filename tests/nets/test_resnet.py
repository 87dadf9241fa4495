"""ResNet-50 against torchvision's, on the same random weights and statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.convert.features import resnet50_params
from binlatent.nets.resnet import ResNet50
from tests.torch_nets import randomise, state_of, torch_and

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.mark.parametrize("size", [(65, 47), (64, 64)])
def test_equals_torchvision_forward_and_gradient(size):
    torch, models = torch_and("torchvision.models")
    torch.manual_seed(0)
    net = models.resnet50(weights=None).eval()
    randomise(torch, net)
    images = np.random.default_rng(0).random((2, *size, 3)).astype(np.float32)
    direction = np.random.default_rng(1).standard_normal((2, 1000)).astype(np.float32)
    x = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
    mean, deviation = (torch.tensor(v, dtype=torch.float32)[None, :, None, None] for v in (MEAN, DEVIATION))
    expected = net((x - mean) / deviation)
    (expected * torch.tensor(direction)).sum().backward()

    params = resnet50_params(state_of(net))

    def ours(images):
        logits = ResNet50().apply({"params": params}, images)
        return jnp.sum(logits * direction), logits

    (_, logits), gradient = jax.jit(jax.value_and_grad(ours, has_aux=True))(images)
    expected, theirs = expected.detach().numpy(), x.grad.numpy().transpose(0, 2, 3, 1)
    assert expected.std() > 0.5
    np.testing.assert_allclose(logits / abs(expected).max(), expected / abs(expected).max(), atol=1e-5)
    np.testing.assert_allclose(gradient / abs(theirs).max(), theirs / abs(theirs).max(), atol=1e-5)
