#!/usr/bin/env bash
# What one GPU can say about the project in ten minutes: the CUDA tests, the filter and step benchmarks, and as many epochs of Vox-UDA at
# the paper's size as fit. Run it again, and training goes on from the checkpoint that the last call left.
#
#   benchmarks/gpu.sh                                                  ten minutes on the first GPU, into results/gpu
#   DEVICE=cpu SCALE=smoke MINUTES=1 OUT=/tmp/gpu benchmarks/gpu.sh     a trial of the training without a GPU
#
# Leaves OUT/tests.txt, OUT/gpu-*.json, OUT/epochs.json, and OUT/run with log, weights and the checkpoint in parts below 16 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python} DEVICE=${DEVICE:-cuda} SCALE=${SCALE:-paper} MINUTES=${MINUTES:-10} OUT=${OUT:-results/gpu}
mkdir -p "$OUT"
state="$OUT/run/checkpoint/state.pt"

if [ "$DEVICE" = cuda ] && [ ! -e "$OUT/tests.txt" ]; then # the first call
    "$PYTHON" -m pytest -q -rs -p no:cacheprovider tests/training/test_loop.py tests/denoising/test_bilateral_triton.py \
        -k "gpu or device or programs" > "$OUT/tests.txt" 2>&1 || { tail -20 "$OUT/tests.txt"; exit 1; }
    tail -4 "$OUT/tests.txt"
    "$PYTHON" -m pytest -q -s -p no:cacheprovider benchmarks/test_gpu.py
    mv results/benchmarks/gpu-*.json "$OUT"
fi

[ -e "$state" ] || ! [ -e "$state.00" ] || cat "$state".?? > "$state"
precision=$([ "$DEVICE" = cuda ] && echo bf16-mixed || echo 32-true)
options=(--method vox-uda --scale "$SCALE" --device "$DEVICE" --precision "$precision" --normalisation group)
[ ! -e "$OUT/run/config.json" ] || options=(--resume)
# Ctrl-C is what ends training: the last whole epoch is in the checkpoint.
left=$((MINUTES * 60 - SECONDS - 20))
[ "$left" -gt 10 ] || left=10
status=0
timeout --signal=INT --kill-after=60 "$left" "$PYTHON" -m voxuda train "${options[@]}" --out "$OUT/run" || status=$?
[ "$status" = 0 ] || [ "$status" = 124 ] || [ "$status" = 130 ] || exit "$status"

if [ -e "$state" ]; then
    rm -f "$state".??
    split --bytes 15M --numeric-suffixes --suffix-length 2 "$state" "$state."
    rm "$state"
fi
"$PYTHON" - "$OUT" <<'END'
import json, sys
from pathlib import Path

from voxuda.training.provenance import provenance
from voxuda.training.run_folder import save_json

out = Path(sys.argv[1])
log = out / "run" / "log.jsonl"
lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
seconds = [line["seconds"] for line in lines]
save_json({"epochs": len(lines), "seconds": seconds, "machine": provenance()}, out / "epochs.json")
print(f"{len(lines)} epochs so far, {sum(seconds):.0f} s; call again to go on")
END
