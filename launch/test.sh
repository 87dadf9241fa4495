#!/usr/bin/env bash
# Sets up, lints, and runs the tests. Arguments go to pytest: launch/test.sh -m slow
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" test

.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
.venv/bin/ty check --python .venv
if [ $# -eq 0 ]; then
  # a file's tests run on one worker, so that what they share is made once
  set -- -m "not slow" -n "${TEST_WORKERS:-2}" --dist loadfile
fi
.venv/bin/python -m pytest "$@"
