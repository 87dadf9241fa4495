#!/usr/bin/env bash
# The main job on an embedded real data set, on a CPU: sets up, trains both stages on handwritten digits, shows samples.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" run

.venv/bin/binlatent run --config digits --workdir runs/digits "$@"

cat <<'END'

Done. Look at
  runs/digits/samples/samples.png            new digits, a column a class
  runs/digits/samples/reconstructions.png    held-out digits, each with its reconstruction below
and make more:
  .venv/bin/binlatent sample --workdir runs/digits --labels 0,1,2,3,4,5,6,7,8,9 --num 100 --out digits.png
END
