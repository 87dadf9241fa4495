import jax
import jax.numpy as jnp
import pytest

from binlatent.train.terms import Term, weighted_sum


def test_a_term_weighs_nothing_before_its_start_step():
    term = Term(name="adversarial", weight=0.1, start_step=10)
    weights = [float(jax.jit(term.weight_at)(step)) for step in (0, 9, 10, 1000)]
    assert weights == pytest.approx([0, 0, 0.1, 0.1])
    assert term.weight_at(3).dtype == jnp.float32


def test_annealing_is_linear_from_the_start_step():
    term = Term(name="entropy", weight=0.02, start_step=100, initial_weight=0.04, anneal_steps=200)
    weights = [float(jax.jit(term.weight_at)(step)) for step in (99, 100, 200, 300, 5000)]
    assert weights == pytest.approx([0, 0.04, 0.03, 0.02, 0.02])


@pytest.mark.parametrize(
    "bad",
    [{"start_step": -1}, {"anneal_steps": -2}, {"weight": float("nan")}, {"initial_weight": 1.0}, {"anneal_steps": 5}],
)
def test_senseless_terms_are_refused_by_name(bad):
    with pytest.raises(ValueError, match="'code'"):
        Term(name="code", **bad)


def test_weighted_sum_averages_examples_and_skips_what_is_off():
    terms = [
        Term(name="l1"),
        Term(name="code", weight=2.0),
        Term(name="late", weight=5.0, start_step=3),
        Term(name="off", weight=0),
    ]
    values = {"l1": jnp.array([1.0, 3.0]), "code": jnp.float32(0.5), "late": jnp.array([7.0])}
    assert float(weighted_sum(terms, values, 0)) == pytest.approx(3.0)
    assert float(jax.jit(lambda step: weighted_sum(terms, values, step))(3)) == pytest.approx(38.0)


def test_weighted_sum_refuses_what_does_not_match():
    with pytest.raises(ValueError, match="no value"):
        weighted_sum([Term(name="l1")], {}, 0)
    with pytest.raises(ValueError, match="no term"):
        weighted_sum([], {"l1": jnp.float32(0)}, 0)
    with pytest.raises(ValueError, match="share a name"):
        weighted_sum([Term(name="l1"), Term(name="l1")], {"l1": jnp.float32(0)}, 0)
