#!/usr/bin/env bash
#
# Checks each crate alone, without features and with each of its features alone, and that the standard
# library is used as the oldest supported Rust has it.
#
#     scripts/check-features.sh [CRATE...]     all crates by default
#
# Not part of .ci/run: a crate alone resolves other features of burn than the workspace does, so that burn
# is checked anew for most rows: about half an hour on 2 cores. What .ci/run does hold at every change is
# the minimum Rust version (clippy's `incompatible_msrv`, against `rust-version`) and the features of the
# workspace's own build. With a toolchain of the minimum version installed by rustup, that one is used too.

set -euo pipefail
cd "$(dirname "$0")/.."

minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
metadata=$(cargo metadata --no-deps --format-version 1)
list() { python3 -c "import json,sys; $1" <<<"$metadata"; }

crates=("$@")
if [[ $# -eq 0 ]]; then
  mapfile -t crates < <(list 'print(*[p["name"] for p in json.load(sys.stdin)["packages"] if p["publish"] is None], sep="\n", end="")')
fi

for crate in "${crates[@]}"; do
  of_crate="[f for p in json.load(sys.stdin)['packages'] if p['name'] == '$crate' for f in sorted(p['features'])]"
  mapfile -t features < <(list "print(*[f for f in $of_crate if f != 'default'], sep='\n', end='')")
  for feature in "" "${features[@]}"; do
    echo "== $crate, ${feature:-no feature}"
    cargo check --quiet --package "$crate" --lib --no-default-features ${feature:+--features "$feature"}
  done
done

if command -v rustup >/dev/null && rustup toolchain list | grep -q "^$minimum"; then
  echo "== Rust $minimum"
  cargo "+$minimum" check --quiet --workspace
else
  echo "not run: no Rust $minimum is installed"
fi
