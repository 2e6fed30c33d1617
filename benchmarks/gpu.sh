#!/usr/bin/env bash
# What to run where a GPU is at hand for a few minutes: its tests, then training steps, memory, prediction and a
# profile, as tables. Needs no internet: `make setup WHEELHOUSE=...` before (docs/offline.md).
#
#   benchmarks/gpu.sh [FOLDER]    FOLDER receives the tables, gpu-results by default
#   VARIANTS, BATCHES, OBJECTS    what to measure; SIZE in pixels
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
out=${1:-gpu-results}
mkdir -p "$out"

"$python" - <<'CHECK'
import torch

print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}")
CHECK

echo "tests that need a GPU"
whole=(tests/model/test_kernels.py tests/model/test_on_gpu.py tests/training/test_captured.py)
some=(tests/geometry/test_rotated.py tests/training/test_stepping.py tests/stages/test_predict.py tests/stages/test_train.py)
{ "$python" -m pytest -q -rs "${whole[@]}" && "$python" -m pytest -q -rs "${some[@]}" -k gpu; } \
    > "$out/tests.txt" 2>&1 || echo "some failed: see $out/tests.txt"
tail -n 5 "$out/tests.txt"

echo "training and prediction"
# shellcheck disable=SC2086  # lists of words
"$python" benchmarks/training.py --variants ${VARIANTS:-yoloms-xs-current yoloms-s-current} \
    --batches ${BATCHES:-8 16 32} --objects ${OBJECTS:-100} ${SIZE:+--size $SIZE} --predict --profile 25 \
    2> "$out/errors.txt" | tee "$out/training.txt"
