#!/usr/bin/env bash
#
# Runs the tests of quant-kernels under the address sanitizer, once for each set of vector instructions that this
# processor has: every `unsafe` of the kernels, the intrinsics included, on real memory.
#
#     scripts/check-sanitizer.sh
#
# Needs a nightly toolchain (`rustup toolchain install nightly`) and an x86-64 Linux. It builds burn anew in
# target/sanitizer, which takes about a quarter of an hour on 2 cores.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RUSTFLAGS=-Zsanitizer=address
export CARGO_TARGET_DIR=${SANITIZER_TARGET_DIR:-target/sanitizer}
sets=("$@")
[[ $# -gt 0 ]] || sets=(avx512-bf16 avx512-vnni avx512 avx2 portable)

# Whether the processor has a set of instructions.
has() {
  local flag flags=()
  case $1 in
    avx2) flags=(avx2 fma) ;;
    avx512) flags=(avx512f avx512bw avx512dq avx512vl) ;;
    avx512-bf16) flags=(avx512f avx512bw avx512dq avx512vl avx512_vnni avx512_bf16) ;;
    avx512-vnni) flags=(avx512f avx512bw avx512dq avx512vl avx512_vnni) ;;
  esac
  for flag in "${flags[@]}"; do
    grep -qw "$flag" /proc/cpuinfo || return 1
  done
}

# A target by name keeps the flag from build scripts and procedural macros.
for set in "${sets[@]}"; do
  has "$set" || { echo "== $set: not run: this processor lacks it"; continue; }
  echo "== $set"
  SWITCHABLE_QUANT_INSTRUCTIONS=$set cargo +nightly test --target x86_64-unknown-linux-gnu -p quant-kernels \
    --features autodiff,flex,ndarray --lib --test quantisation --test packed
done
