"""Sampling options: what is taken, what is refused, and where it goes."""

import math

import pytest

from binlatent.diffusion.schedule import Cosine
from binlatent.sampling.guidance import Guidance
from binlatent.sampling.options import SamplingOptions
from binlatent.sampling.sampler import Sampler


def test_options_reach_the_sampler_and_the_guidance():
    options = SamplingOptions(
        steps=3,
        posterior="plugin",
        last_step="argmax",
        guidance_interval=(0.1, 0.9),
        guidance_power=1.5,
    )
    assert options.sampler(Cosine()) == Sampler(schedule=Cosine(), steps=3, posterior="plugin", last_step="argmax")
    assert options.when() == Guidance(interval=(0.1, 0.9), guidance_power=1.5)
    assert SamplingOptions().sampler(Cosine()) == Sampler(schedule=Cosine())
    assert SamplingOptions().when() == Guidance()


def test_the_defaults_sample_the_model_as_it_is():
    options = SamplingOptions()
    assert (options.guidance, options.temperature) == (0.0, 1.0)
    assert (options.posterior, options.last_step, options.steps) == ("mixture", "sample", 16)


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 1},
        {"guidance": -1.0},
        {"guidance_power": 0.0},
        {"guidance_interval": (0.5, 0.5)},
        {"temperature": 1e-9},
    ],
)
def test_limits_are_within(values):
    SamplingOptions(**values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": 0}, "steps is 0: at least 1"),
        ({"guidance": math.nan}, "guidance is nan: a finite"),
        ({"guidance": math.inf}, "guidance is inf: a finite"),
        ({"guidance_power": -0.1}, "guidance_power is -0.1"),
        ({"guidance_power": math.inf}, "guidance_power is inf"),
        ({"guidance_power": math.nan}, "guidance_power is nan"),
        ({"temperature": 0.0}, "temperature is 0.0: a positive"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"guidance_interval": (-0.1, 1.0)}, "0 <= low <= high <= 1"),
        ({"guidance_interval": (0.6, 0.5)}, "0 <= low <= high <= 1"),
        ({"guidance_interval": (0.0, 1.1)}, "0 <= low <= high <= 1"),
    ],
)
def test_values_out_of_range_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        SamplingOptions(**values)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("posterior", "posterior is 'best'; there are mixture, plugin"),
        ("last_step", "last_step is 'best'; there are sample, argmax"),
    ],
)
def test_unknown_choices_are_refused_where_types_are_not_checked(name, words):
    options = SamplingOptions()
    object.__setattr__(options, name, "best")  # in tests, jaxtyping refuses it as an argument
    with pytest.raises(ValueError, match=words):
        options.__post_init__()
