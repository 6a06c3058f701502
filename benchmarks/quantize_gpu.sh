#!/bin/bash
# One run of benchmarks/quantize.py on a GPU machine without network: benchmarks/quantize_gpu.sh RECIPE SECONDS OUT [ARGS]
# WHEELS: folder of wheels to install aside; SHARDS: folder with train shards (.bin.xz), contest_val.bin, tokenizer.model.
set -e
recipe=$1; seconds=$2; out=$3; shift 3
site=$(mktemp -d); data=$(mktemp -d)
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "${WHEELS:?}"/*.whl
for shard in "${SHARDS:?}"/*_train_*.bin.xz; do
  python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"), 1 << 22)' \
    "$shard" "$data/$(basename "${shard%.xz}")" &
done
wait
export PYTHONPATH="$PWD:$site" PYTHONUNBUFFERED=1
python3 benchmarks/quantize.py --train "$recipe" --seconds "$seconds" --data "$data" \
  --val "$SHARDS/contest_val.bin" --tokenizer "$SHARDS/tokenizer.model" --out "$out/quantize_$recipe.json" "$@"
