import jax
import numpy as np
import pytest

from binlatent import prng


def test_streams_steps_and_examples_differ():
    key = prng.root(0)
    keys = [prng.stream(key, name, step) for name in prng.STREAMS for step in range(3)]
    data = {tuple(np.asarray(jax.random.key_data(k))) for k in keys}
    assert len(data) == len(keys)


def test_an_examples_draws_do_not_depend_on_the_batch():
    key = prng.root(0)
    whole = prng.uniform(prng.per_example(key, 8), (3,))
    part = prng.uniform(prng.per_example(key, 2, 5), (3,))
    assert np.array_equal(whole[5:7], part)


def test_unknown_stream():
    with pytest.raises(ValueError, match=r"'dropout'.*train"):
        prng.stream(prng.root(0), "dropout")
