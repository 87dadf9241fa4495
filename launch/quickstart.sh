#!/usr/bin/env bash
# The main job on an embedded real data set, on a CPU: sets up, trains both stages on handwritten digits, shows samples.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" run

.venv/bin/binlatent run --config digits --workdir runs/digits "$@"

cat <<'END'

Done. Look at
  runs/digits/samples/samples.png            new digits, one column per class
  runs/digits/samples/reconstructions.png    held-out digits, each with its reconstruction below
and make more:
  .venv/bin/binlatent sample --workdir runs/digits --num 100 --out digits.png
END
