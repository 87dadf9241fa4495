"""VGG16 and LPIPS against torchvision's and the `lpips` package's code, on the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.convert.features import lpips_params, vgg16_params
from binlatent.nets.vgg import LPIPS, VGG16
from tests.torch_nets import randomise, state_of, torch_and

SIZES = [(33, 47), (32, 32)]


def images_of(seed, size, count=2):
    return jnp.asarray(np.random.default_rng(seed).random((count, *size, 3)), jnp.float32)


def to_torch(torch, images, **kwargs):
    return torch.tensor(np.asarray(images).transpose(0, 3, 1, 2), **kwargs)


@pytest.fixture(scope="module")
def vgg16():
    torch, models = torch_and("torchvision.models")
    torch.manual_seed(0)
    net = models.vgg16(weights=None).eval()
    randomise(torch, net)
    return torch, net


@pytest.fixture(scope="module")
def lpips_net(vgg16):
    torch, _ = vgg16
    _, lpips = torch_and("lpips")
    torch.manual_seed(1)
    net = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    randomise(torch, net.net)
    # The package splits torchvision's network into slices and keeps each layer's index.
    state = {
        "features." + key.split(".", 2)[2]: value for key, value in state_of(net).items() if key.startswith("net.")
    }
    heads = {key: value for key, value in state_of(net).items() if key.startswith("lin") and not key.startswith("lins")}
    return torch, net, lpips_params(state, heads)


@pytest.mark.parametrize("size", SIZES)
def test_features_equal_torchvision(vgg16, size):
    torch, net = vgg16
    images = images_of(0, size)
    expected, x = [], to_torch(torch, images)
    with torch.no_grad():
        for index, layer in enumerate(net.features):
            x = layer(x)
            if index in (3, 8, 15, 22, 29):  # relu1_2, 2_2, 3_3, 4_3, 5_3
                expected.append(x.numpy().transpose(0, 2, 3, 1))
    ours = jax.jit(VGG16().apply)({"params": vgg16_params(state_of(net))}, images)
    for theirs, mine in zip(expected, ours, strict=True):
        assert theirs.std() > 0.05
        np.testing.assert_allclose(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_lpips_equals_the_package_forward_and_gradient(lpips_net, size):
    torch, net, params = lpips_net
    a, b = images_of(1, size), images_of(2, size)
    x = to_torch(torch, a, requires_grad=True)
    distance = net(x, to_torch(torch, b), normalize=True)[:, 0, 0, 0]
    weights = np.array([1.0, 3.0], np.float32)  # a gradient that mixes examples up would show
    (distance * torch.tensor(weights)).sum().backward()

    def ours(images):
        each = LPIPS().apply({"params": params}, images, b)
        return jnp.sum(each * weights), each

    (_, each), gradient = jax.jit(jax.value_and_grad(ours, has_aux=True))(a)
    assert np.all(distance.detach().numpy() > 1e-3)
    np.testing.assert_allclose(each, distance.detach().numpy(), atol=1e-5, rtol=1e-5)
    theirs = x.grad.numpy().transpose(0, 2, 3, 1)
    # gradients of a mean over pixels are small: compare them relative to their largest value
    np.testing.assert_allclose(gradient / abs(theirs).max(), theirs / abs(theirs).max(), atol=1e-5)


def test_equal_images_are_at_distance_zero_with_a_finite_gradient(lpips_net):
    *_, params = lpips_net
    dead = jax.tree.map(lambda leaf: -abs(leaf), params)  # every feature is zero: the unit vector has no direction
    images = images_of(3, (16, 16))
    distance = jax.jit(jax.value_and_grad(lambda x, tree: LPIPS().apply({"params": tree}, x, images).sum()))
    for tree in (params, dead):
        value, gradient = distance(images, tree)
        assert abs(float(value)) < 1e-9
        assert np.all(np.isfinite(gradient))


def test_bf16_convolutions_keep_a_float32_distance(lpips_net):
    *_, params = lpips_net
    a, b = images_of(1, (32, 32)), images_of(2, (32, 32))
    exact, rough = (LPIPS(dtype=dtype).apply({"params": params}, a, b) for dtype in (jnp.float32, jnp.bfloat16))
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, rtol=0.05)


def test_images_too_small_are_refused():
    with pytest.raises(ValueError, match="16 pixels"):
        VGG16().init(jax.random.key(0), jnp.zeros((1, 15, 32, 3)))
