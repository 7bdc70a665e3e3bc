#!/bin/sh
# Builds spend-ledger.wasm beside this folder, or at the path given. The bytes depend on the sources, Cargo.lock and the
# compiler named in rust-toolchain.toml only: every path that could reach them is mapped to a fixed name.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
out=${1:-"$here/../spend-ledger.wasm"}
target=${CARGO_TARGET_DIR:-"$here/target"}/spend-ledger
cargo_home=${CARGO_HOME:-"$HOME/.cargo"}
cd "$here"
CARGO_ENCODED_RUSTFLAGS=$(printf '%s\037%s' "--remap-path-prefix=$cargo_home=/cargo" "--remap-path-prefix=$here=/src") \
	CARGO_TARGET_DIR="$target" cargo build --quiet --locked --release --target wasm32-wasip2
cp "$target/wasm32-wasip2/release/spend_ledger.wasm" "$out"
