#!/usr/bin/env bash
# Sets up, trains both stages on handwritten digits and saves samples; on a CPU, without downloads of data.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" run

.venv/bin/binlatent run --config digits --workdir runs/digits "$@"

cat <<'END'

Done. Look at
  runs/digits/samples/samples.png            new digits, one column per class
  runs/digits/samples/reconstructions.png    held-out digits, each with its reconstruction below
Sample more with
  .venv/bin/binlatent sample --workdir runs/digits --num 100 --out digits.png
END
