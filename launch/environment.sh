# Sourced by the launch scripts: a virtual environment in .venv with this project and the extras named in $1.
# Nothing is installed again unless setup.py or the constraints have changed.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3.12 python3.11 python3.13 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      python=$candidate
      break
    fi
  done
fi
if ! "${python:-false}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "binlatent needs Python 3.11 or newer${python:+, and $python is not}: install one, or set PYTHON=/path/to/python" >&2
  exit 1
fi

extras=$1
stamp=$(cat setup.py launch/constraints.txt | cksum)-$extras
if [ ! -x .venv/bin/python ] || [ "$(cat .venv/installed-"$extras" 2>/dev/null)" != "$stamp" ]; then
  echo "setting up .venv with $("$python" --version) (once)"
  if [ ! -x .venv/bin/python ]; then
    "$python" -m venv .venv || {
      echo "the virtual environment could not be created; on Debian and Ubuntu: apt-get install python3-venv" >&2
      exit 1
    }
  fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint launch/constraints.txt --editable ".[$extras]" || exit 1
  echo "$stamp" >.venv/installed-"$extras"
fi
