"""From a configuration to the objects that it describes.

A configuration is an `ml_collections.ConfigDict`. Unknown keys are errors in config files, on the command line and in work
directories.
"""

from binlatent.config.build import (
    build_autoencoder,
    build_codes,
    build_data,
    build_denoiser,
    build_mesh,
    build_objective,
    build_plan,
    build_sampling,
    build_text,
    build_training,
    changed_sampling,
    defaults,
)
from binlatent.config.changes import check_changes
from binlatent.config.files import (
    check_network,
    differences,
    from_json,
    load,
    override,
    parse,
    read,
    shipped,
    to_json,
    to_values,
    write,
)
from binlatent.config.stages import (
    build_autoencoder_stage,
    build_decoder_stage,
    build_discriminator,
    build_fitting_training,
    build_prior_stage,
    build_student_stage,
    check,
    student_conditioning,
)
from binlatent.config.values import check_values

__all__ = [
    "build_autoencoder",
    "build_autoencoder_stage",
    "build_codes",
    "build_data",
    "build_decoder_stage",
    "build_denoiser",
    "build_discriminator",
    "build_fitting_training",
    "build_mesh",
    "build_objective",
    "build_plan",
    "build_prior_stage",
    "build_sampling",
    "build_student_stage",
    "build_text",
    "build_training",
    "changed_sampling",
    "check",
    "check_changes",
    "check_network",
    "check_values",
    "defaults",
    "differences",
    "from_json",
    "load",
    "override",
    "parse",
    "read",
    "shipped",
    "student_conditioning",
    "to_json",
    "to_values",
    "write",
]
