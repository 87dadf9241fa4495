#!/usr/bin/env bash
# One machine with NVIDIA GPUs: sets up JAX for CUDA and runs one `binlatent` command on all of them.
#
#   launch/gpu.sh run --config cifar10 --workdir runs/cifar10
#   CUDA=cuda13 CUDA_VISIBLE_DEVICES=0,1 launch/gpu.sh train --stage prior --workdir runs/cifar10
#
# CUDA is cuda12 (default) or cuda13, to match the driver. The same command resumes an interrupted run.
set -euo pipefail
if [ $# -eq 0 ]; then
  sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "${CUDA:-cuda12}"

exec .venv/bin/binlatent "$@"
