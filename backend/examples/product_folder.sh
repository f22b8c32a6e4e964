#!/bin/sh
# Every photo of a folder through the product workflow, a few at once.
#
#     sh examples/product_folder.sh photos out 4
#
# Each product has a folder of its own in `out`: its pictures, and product.json. Run it again to go on: a product whose
# product.json is there is skipped. What failed is told in its failed.json. PYTHON names the Python that has the packages.
set -eu

photos=$1 out=$2 at_once=${3:-4}
PYTHON=${PYTHON:-python3}
WORKER=$(cd "$(dirname "$0")/.." && pwd)/src/services/fal_worker.py
export PYTHON WORKER

# shellcheck disable=SC2016  # the inner shell's variables
make_one='
    folder=$1/$(basename "$2")
    [ -e "$folder/product.json" ] && exit 0
    mkdir -p "$folder"
    if "$PYTHON" "$WORKER" workflow --image "$2" --save_dir "$folder" >"$folder/answer.json"; then
        mv "$folder/answer.json" "$folder/product.json"
        echo "$2: done"
    else
        mv "$folder/answer.json" "$folder/failed.json"
        echo "$2: failed, see $folder/failed.json" >&2
        exit 1
    fi'

find "$photos" -maxdepth 1 -type f \
    \( -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.png' -o -iname '*.webp' \) -print0 |
    xargs -0 -n 1 -P "$at_once" sh -c "$make_one" sh "$out"
