"""The Inception network of the Fréchet Inception distance (Szegedy et al. 2016, the TF graph of 2015-12-05).

It is not torchvision's Inception: it has 1008 classes, average pooling that does not count the padding, and max pooling
in the last block instead of an average. Batch normalisation is always frozen, and so folded into the convolutions.
Weights are an argument. `inception_from_torch` makes them from `pt_inception-2015-12-05-6726825d.pth`.
"""

from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from binlatent.typing import Array, Float, Images, PyTree

SIZE = 299
CLASSES = 1008
SPATIAL_CHANNELS = 7

# How images become the network's input.
#   tf1: bilinear without half-pixel centres and (255 x - 128) / 128: the original TF graph, torch-fidelity and ADM
#   pytorch-fid: bilinear with half-pixel centres, no antialiasing, and 2 x - 1
Resize = Literal["tf1", "pytorch-fid"]

_EXACT = jax.lax.Precision.HIGHEST  # a score must not depend on whether a device rounds products to TF32 or bfloat16


@flax.struct.dataclass
class InceptionFeatures:
    """The network's outputs that the scores use.

    pool: the 2048 averages after the last block: FID, KID, precision and recall.
    spatial: the first 7 channels of the block that TF calls `mixed_6` (torchvision: `Mixed_6d`) on 17×17 positions,
        flattened to 2023. They are the 1×1 branch after its ReLU, the graph's `mixed_6/conv:0`: sFID as ADM's
        evaluator defines it (Dhariwal and Nichol 2021, after Nash et al. 2021).
    logits: 1008 class logits without the bias, as the original Inception Score reads them.
    """

    pool: Float[Array, "b 2048"]
    spatial: Float[Array, "b 2023"]
    logits: Float[Array, "b 1008"]


class _Conv(nn.Module):
    """Convolution with its normalisation folded in, then ReLU."""

    features: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x):
        strides = (self.stride, self.stride)
        return nn.relu(nn.Conv(self.features, self.size, strides, self.padding, precision=_EXACT, name="conv")(x))


def _average(x):
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _shrink(x):
    return nn.max_pool(x, (3, 3), (2, 2), "VALID")


class _BlockA(nn.Module):
    pool: int

    @nn.compact
    def __call__(self, x):
        a = _Conv(64, name="branch1x1")(x)
        b = _Conv(64, (5, 5), name="branch5x5_2")(_Conv(48, name="branch5x5_1")(x))
        c = _Conv(96, (3, 3), name="branch3x3dbl_2")(_Conv(64, name="branch3x3dbl_1")(x))
        c = _Conv(96, (3, 3), name="branch3x3dbl_3")(c)
        return jnp.concatenate([a, b, c, _Conv(self.pool, name="branch_pool")(_average(x))], -1)


class _BlockB(nn.Module):
    @nn.compact
    def __call__(self, x):
        a = _Conv(384, (3, 3), 2, "VALID", name="branch3x3")(x)
        b = _Conv(96, (3, 3), name="branch3x3dbl_2")(_Conv(64, name="branch3x3dbl_1")(x))
        b = _Conv(96, (3, 3), 2, "VALID", name="branch3x3dbl_3")(b)
        return jnp.concatenate([a, b, _shrink(x)], -1)


class _BlockC(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        w = self.width
        a = _Conv(192, name="branch1x1")(x)
        b = _Conv(w, name="branch7x7_1")(x)
        b = _Conv(192, (7, 1), name="branch7x7_3")(_Conv(w, (1, 7), name="branch7x7_2")(b))
        c = _Conv(w, name="branch7x7dbl_1")(x)
        c = _Conv(w, (1, 7), name="branch7x7dbl_3")(_Conv(w, (7, 1), name="branch7x7dbl_2")(c))
        c = _Conv(192, (1, 7), name="branch7x7dbl_5")(_Conv(w, (7, 1), name="branch7x7dbl_4")(c))
        return jnp.concatenate([a, b, c, _Conv(192, name="branch_pool")(_average(x))], -1)


class _BlockD(nn.Module):
    @nn.compact
    def __call__(self, x):
        a = _Conv(320, (3, 3), 2, "VALID", name="branch3x3_2")(_Conv(192, name="branch3x3_1")(x))
        b = _Conv(192, (1, 7), name="branch7x7x3_2")(_Conv(192, name="branch7x7x3_1")(x))
        b = _Conv(192, (3, 3), 2, "VALID", name="branch7x7x3_4")(_Conv(192, (7, 1), name="branch7x7x3_3")(b))
        return jnp.concatenate([a, b, _shrink(x)], -1)


class _BlockE(nn.Module):
    max_pool: bool  # the frozen graph has a max pool in its last block, where the paper averages

    @nn.compact
    def __call__(self, x):
        a = _Conv(320, name="branch1x1")(x)
        b = _Conv(384, name="branch3x3_1")(x)
        b = [_Conv(384, (1, 3), name="branch3x3_2a")(b), _Conv(384, (3, 1), name="branch3x3_2b")(b)]
        c = _Conv(384, (3, 3), name="branch3x3dbl_2")(_Conv(448, name="branch3x3dbl_1")(x))
        c = [_Conv(384, (1, 3), name="branch3x3dbl_3a")(c), _Conv(384, (3, 1), name="branch3x3dbl_3b")(c)]
        pooled = nn.max_pool(x, (3, 3), (1, 1), "SAME") if self.max_pool else _average(x)
        return jnp.concatenate([a, *b, *c, _Conv(192, name="branch_pool")(pooled)], -1)


class InceptionV3(nn.Module):
    """The network on its own input: (b, 299, 299, 3), already scaled. `inception_features` resizes and scales first."""

    @nn.compact
    def __call__(self, x: Float[Array, "b 299 299 3"]) -> InceptionFeatures:
        x = _Conv(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = _Conv(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = _shrink(_Conv(64, (3, 3), name="Conv2d_2b_3x3")(x))
        x = _Conv(80, name="Conv2d_3b_1x1")(x)
        x = _shrink(_Conv(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x))
        for name, pool in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = _BlockA(pool, name=name)(x)
        x = _BlockB(name="Mixed_6a")(x)
        x = _BlockC(128, name="Mixed_6b")(x)
        x = _BlockC(160, name="Mixed_6c")(x)
        x = _BlockC(160, name="Mixed_6d")(x)
        spatial = x[..., :SPATIAL_CHANNELS].reshape(len(x), -1)
        x = _BlockC(192, name="Mixed_6e")(x)
        x = _BlockD(name="Mixed_7a")(x)
        x = _BlockE(False, name="Mixed_7b")(x)
        x = _BlockE(True, name="Mixed_7c")(x)
        pool = x.mean((1, 2))
        logits = nn.Dense(CLASSES, use_bias=False, precision=_EXACT, name="fc")(pool)
        return InceptionFeatures(pool=pool, spatial=spatial, logits=logits)


def _bilinear(size: int, out: int, half_pixel: bool) -> np.ndarray:
    """Weights (out, size) of one axis of a bilinear resize without antialiasing."""
    position = np.arange(out, dtype=np.float64)
    position = np.maximum((position + 0.5) * (size / out) - 0.5, 0) if half_pixel else position * (size / out)
    low = np.minimum(np.floor(position).astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    weights = np.zeros((out, size))
    np.add.at(weights, (np.arange(out), low), 1 - (position - low))
    np.add.at(weights, (np.arange(out), high), position - low)
    return weights.astype(np.float32)


def inception_input(images: Images, resize: Resize = "tf1") -> Float[Array, "b 299 299 3"]:
    """Resizes and scales images as the named implementation does. A single channel is repeated to make three.

    Raises:
      ValueError: the number of channels is neither 1 nor 3, or `resize` is unknown.
    """
    b, h, w, c = images.shape
    if c not in (1, 3):
        raise ValueError(f"Inception takes images of 1 or 3 channels, not {c}")
    if resize not in ("tf1", "pytorch-fid"):
        raise ValueError(f"resize is {resize!r}; use 'tf1' or 'pytorch-fid'")
    half_pixel = resize == "pytorch-fid"
    rows, columns = _bilinear(h, SIZE, half_pixel), _bilinear(w, SIZE, half_pixel)
    x = jnp.einsum("Hh,bhwc->bHwc", rows, images.astype(jnp.float32), precision=_EXACT)
    x = jnp.einsum("Ww,bHwc->bHWc", columns, x, precision=_EXACT)
    x = 2 * x - 1 if half_pixel else (255 * x - 128) / 128
    return jnp.broadcast_to(x, (b, SIZE, SIZE, 3))


def inception_features(params: PyTree, images: Images, *, resize: Resize = "tf1") -> InceptionFeatures:
    """Features of images in [0, 1], with the weights `params`."""
    return InceptionV3().apply({"params": params}, inception_input(images, resize))


def init_inception(key: Array) -> PyTree:
    """Random weights, for shapes and tests, not for scores."""
    return InceptionV3().init(key, jnp.zeros((1, SIZE, SIZE, 3)))["params"]


def inception_from_torch(state: Mapping[str, np.ndarray]) -> PyTree:
    """Converts the weights of pytorch-fid's file: `<layer>.conv.weight`, `<layer>.bn.*`, `fc.*`.

    Raises:
      ValueError: weights are missing, left over or of the wrong shape; the message names them.
    """
    state = {name: np.asarray(value) for name, value in state.items() if not name.endswith("num_batches_tracked")}
    expected = jax.eval_shape(init_inception, jax.random.key(0))
    used, problems = {"fc.bias"}, []  # the original Inception Score omits the bias

    def take(name, shape):
        used.add(name)
        if name not in state:
            problems.append(f"{name} is missing")
        elif state[name].shape != shape:
            problems.append(f"{name} has shape {state[name].shape}, expected {shape}")
        else:
            return state[name].astype(np.float64)
        return np.ones(shape)

    def layer(prefix, tree):
        if "conv" not in tree:
            return {name: layer(f"{prefix}{name}.", sub) for name, sub in tree.items()}
        height, width, inputs, outputs = tree["conv"]["kernel"].shape
        kernel = rearrange(take(f"{prefix}conv.weight", (outputs, inputs, height, width)), "o i h w -> h w i o")
        scale, shift, mean, variance = (
            take(f"{prefix}bn.{name}", (outputs,)) for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / np.sqrt(variance + 1e-3)
        folded = {"kernel": (kernel * scale).astype(np.float32), "bias": (shift - mean * scale).astype(np.float32)}
        return {"conv": folded}

    params = {name: layer(f"{name}.", tree) for name, tree in expected.items() if name != "fc"}
    params["fc"] = {"kernel": take("fc.weight", (CLASSES, 2048)).T.astype(np.float32)}
    problems += [f"{name} is not part of the network" for name in sorted(set(state) - used)]
    if problems:
        listed = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ValueError(
            f"these are not the weights of the FID Inception: {listed}. Use pytorch-fid's file "
            "pt_inception-2015-12-05-6726825d.pth (torchvision's inception_v3 is a different network)"
        )
    return params
