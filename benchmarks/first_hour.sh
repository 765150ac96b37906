#!/usr/bin/env bash
# The first hour on a lent GPU machine: everything that simulation cannot show, in at most twelve minutes.
#
#   benchmarks/first_hour.sh            writes benchmarks/FIRST_HOUR.md, or $OUT/FIRST_HOUR.md
#   benchmarks/first_hour.sh --dry      the same on a CPU, with tiny sizes, on a pretend card
#
# PYTHON: the interpreter to use. WHEELS: a folder of wheels that are installed first, where nothing can be downloaded.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
if [ -d "${WHEELS:-}" ]; then
  site=$(mktemp -d)
  "$PYTHON" -m pip install -q --no-index --no-deps --target "$site" "$WHEELS"/*.whl || exit 1
  export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}
VIDEOGEN_CACHE=$(mktemp -d)
export VIDEOGEN_CACHE

limit=720
[ "${1:-}" = --dry ] && limit=2160
exec timeout "$limit" "$PYTHON" -W ignore -m benchmarks.first_hour "$@"
