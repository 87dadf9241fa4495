"""Names of feature networks, and messages if they are missing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.errors import UserError
from binlatent.evaluate.features import classifier_network, inception_network, user_network
from binlatent.nets.classifier import FeatureClassifier
from binlatent.nets.inception import init_inception

IMAGES = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))


def test_inception_without_weights_is_refused_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match="binlatent convert-features inception"):
        inception_network()


def test_inception_reads_the_cache_and_is_called_fid(tmp_path, monkeypatch):
    from binlatent.nets import weights

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shapes = jax.eval_shape(init_inception, jax.random.key(0))
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    weights.save("inception", params)
    network, other = inception_network(), inception_network("pytorch-fid")
    assert network.title("frechet_distance") == "FID" and network.title("kernel_distance") == "KID"
    assert network.fingerprint == inception_network(params=params).fingerprint
    assert network.description["preprocessing"] != other.description["preprocessing"]
    out = jax.eval_shape(lambda p, x: vars(network.function(p, x)), params, IMAGES)
    assert {k: v.shape for k, v in out.items()} == {"pool": (3, 2048), "spatial": (3, 2023), "logits": (3, 1008)}


def test_classifier_scores_are_never_called_fid():
    net = FeatureClassifier(num_classes=5, width=8, num_features=16)
    params = jax.jit(net.init)(jax.random.key(0), IMAGES)["params"]
    network = classifier_network(net, params)
    titles = [network.title(s) for s in ("frechet_distance", "kernel_distance", "inception_score",
                                         "spatial_frechet_distance", "reconstruction_frechet_distance")]  # fmt: skip
    assert titles[0] == "Fréchet distance (classifier features)"
    assert not any(word in title for title in titles for word in ("FID", "KID", "Inception"))
    out = jax.jit(network)(IMAGES)
    assert out.pool.shape == (3, 16) and out.logits.shape == (3, 5) and out.spatial is None
    changed = classifier_network(net, jax.tree.map(lambda x: x + 1, params))
    assert changed.fingerprint != network.fingerprint


def test_user_file(tmp_path):
    path = tmp_path / "colour.py"
    path.write_text("def features(images):\n    return images.mean((1, 2))\n")
    network = user_network(str(path))
    np.testing.assert_allclose(jax.jit(network.function)(network.params, IMAGES).pool, IMAGES.mean((1, 2)), rtol=1e-6)
    assert network.title("frechet_distance") == "Fréchet distance (user:colour.py features)"
    path.write_text("fingerprint = 'v2'\ndef features(images):\n    return images.mean((1, 2))\n")
    assert user_network(str(path)).fingerprint != network.fingerprint


@pytest.mark.parametrize(
    "text, said",
    [("x = 1", "no function features"), ("import no_such_thing", "ModuleNotFoundError"), ("x = ", "SyntaxError")],
)
def test_invalid_user_files(tmp_path, text, said):
    path = tmp_path / "f.py"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        user_network(str(path))


def test_user_file_of_another_shape_or_missing(tmp_path):
    path = tmp_path / "f.py"
    path.write_text("def features(images):\n    return images")
    with pytest.raises(UserError, match=r"shape \(3, 8, 8, 1\) for 3 images"):
        user_network(str(path))(jnp.asarray(IMAGES))
    with pytest.raises(UserError, match=r"'inception', 'classifier' or a \.py file"):
        user_network(str(tmp_path / "none.py"))
