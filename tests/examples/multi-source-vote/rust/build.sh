#!/bin/sh
# Builds vote_first.wasm into the folder given. Needs `rustup target add wasm32-wasip2`.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
out=${1:?the folder to build into}
target=${CARGO_TARGET_DIR:-"$here/target"}/vote-first
cd "$here"
CARGO_TARGET_DIR="$target" cargo build --quiet --locked --release --target wasm32-wasip2
cp "$target/wasm32-wasip2/release/vote_first.wasm" "$out/vote_first.wasm"
