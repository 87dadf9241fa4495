"""The FID Inception against pytorch-fid's and torch-fidelity's code, on the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.nets.inception import inception_features, inception_from_torch, inception_input
from tests.torch_nets import randomise, state_of, torch_and


def torch_inception(monkeypatch):
    torch, module = torch_and("pytorch_fid.inception")
    net = module._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    torch.manual_seed(0)
    randomise(torch, net)
    for name, value in net.state_dict().items():
        if name.endswith(("bn.weight", "running_var")):
            value.copy_(0.5 + torch.rand_like(value))
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *a, **k: net.state_dict())
    return torch, module


@pytest.fixture
def networks(monkeypatch):
    torch, module = torch_inception(monkeypatch)
    net = module.fid_inception_v3().eval()
    params = inception_from_torch(state_of(net))
    return torch, module, net, params


def test_equals_pytorch_fid(networks, monkeypatch):
    torch, module, net, params = networks
    monkeypatch.setattr(module, "fid_inception_v3", lambda: net)
    reference = module.InceptionV3(output_blocks=(3,)).eval()
    spatial = []
    net.Mixed_6d.branch1x1.register_forward_hook(lambda _, __, out: spatial.append(out.numpy()))
    images = np.random.default_rng(0).random((2, 40, 33, 3)).astype(np.float32)
    with torch.no_grad():
        pool = reference(torch.from_numpy(images.transpose(0, 3, 1, 2)))[0][:, :, 0, 0]
        logits = (pool @ net.fc.weight.T).numpy()
    ours = jax.jit(lambda p, x: inception_features(p, x, resize="pytorch-fid"))(params, images)
    assert pool.std() > 0.1
    np.testing.assert_allclose(ours.pool, pool.numpy(), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(ours.logits, logits, atol=1e-4, rtol=1e-4)
    expected = spatial[0][:, :7].transpose(0, 2, 3, 1).reshape(2, -1)
    np.testing.assert_allclose(ours.spatial, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(32, 32), (8, 8), (300, 411), (299, 299), (512, 64)])
def test_resize_equals_named_reference(shape):
    torch, tf1 = torch_and("torch_fidelity.interpolate_compat_tensorflow")
    images = np.random.default_rng(1).integers(0, 256, (1, *shape, 3), dtype=np.uint8)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2)).float()
    expected = (tf1.interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False) - 128) / 128
    ours = inception_input(jnp.asarray(images / np.float32(255)), "tf1")
    np.testing.assert_allclose(ours, expected.numpy().transpose(0, 2, 3, 1), atol=1e-4)
    expected = torch.nn.functional.interpolate(x / 255, size=(299, 299), mode="bilinear", align_corners=False) * 2 - 1
    ours = inception_input(jnp.asarray(images / np.float32(255)), "pytorch-fid")
    np.testing.assert_allclose(ours, expected.numpy().transpose(0, 2, 3, 1), atol=1e-4)


def test_weights_of_another_network_are_refused(networks):
    _, _, net, _ = networks
    state = state_of(net)
    with pytest.raises(ValueError, match=r"fc\.weight has shape \(1000, 2048\)"):
        inception_from_torch({**state, "fc.weight": np.zeros((1000, 2048))})
    with pytest.raises(ValueError, match=r"AuxLogits\.fc\.weight is not part"):
        inception_from_torch({**state, "AuxLogits.fc.weight": np.zeros(3)})
    del state["Mixed_7c.branch1x1.bn.running_var"]
    with pytest.raises(ValueError, match=r"running_var is missing"):
        inception_from_torch(state)


def test_input_is_checked_and_grey_is_repeated():
    grey = jnp.linspace(0, 1, 64).reshape(1, 8, 8, 1)
    x = inception_input(grey)
    assert x.shape == (1, 299, 299, 3)
    np.testing.assert_array_equal(x[..., 0], x[..., 2])
    with pytest.raises(ValueError, match="not 4"):
        inception_input(jnp.zeros((1, 8, 8, 4)))
