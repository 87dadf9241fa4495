import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.train.state import TrainState


def state(**values):
    return TrainState.create({"w": jnp.array([1.0, -2.0])}, {"m": jnp.array(3.0)}, **values)


def advance(old, value=5.0, finite=True, ema_decay=0.5, extra=None):
    params, opt_state = {"w": jnp.full(2, value)}, {"m": jnp.array(value + 1)}
    return old.advance(params=params, opt_state=opt_state, finite=jnp.array(finite), ema_decay=ema_decay, extra=extra)


def test_a_fresh_state_has_its_parameters_as_average_and_has_taken_no_step():
    fresh = state()
    assert (int(fresh.step), int(fresh.skipped), fresh.extra) == (0, 0, {})
    assert fresh.step.dtype == fresh.skipped.dtype == jnp.int32
    assert np.array_equal(fresh.ema["w"], fresh.params["w"])
    assert fresh.ema["w"] is not fresh.params["w"]  # a step donates both
    assert state(extra={"a": 1}).extra == {"a": 1}


def test_a_step_takes_the_new_values():
    new = advance(state(extra={"a": jnp.array(7.0)}), extra={"a": jnp.array(8.0)})
    assert (int(new.step), int(new.skipped)) == (1, 0)
    assert new.params["w"].tolist() == [5.0, 5.0]
    assert float(new.opt_state["m"]) == 6.0
    assert float(new.extra["a"]) == 8.0
    assert float(advance(state(extra={"a": jnp.array(7.0)})).extra["a"]) == 7.0  # kept where a stage gives none


def test_a_step_that_is_not_finite_is_counted_and_changes_nothing_else():
    old = advance(state(extra={"a": jnp.array(7.0)}))
    new = advance(old, jnp.nan, finite=False, extra={"a": jnp.array(jnp.nan)})
    assert (int(new.step), int(new.skipped)) == (2, 1)
    for name in ("params", "ema", "opt_state", "extra"):
        jax.tree.map(np.testing.assert_array_equal, getattr(new, name), getattr(old, name))
    assert int(advance(new, finite=False).skipped) == 2


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (5, 0.4), (8, 0.5), (1000, 0.5)])
def test_the_average_warms_up(step, decay):
    """min(0.5, (1 + step) / (10 + step)), of the old average and the new parameters."""
    old = state().replace(step=jnp.int32(step))
    np.testing.assert_allclose(advance(old).ema["w"], decay * np.array([1.0, -2.0]) + (1 - decay) * 5.0, rtol=1e-6)
