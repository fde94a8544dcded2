#!/usr/bin/env bash
# Runs every fuzz target, or those named, for a number of runs each: scripts/fuzz.sh RUNS [TARGET...]
# Prints a line per target: runs, coverage, seconds, and the input where one was found. Needs a nightly toolchain
# and cargo-fuzz.
#
#   FUZZ_LOGS   folder for libFuzzer's output, /tmp/fuzz-logs by default
#
# No sanitizer: what is fuzzed is safe Rust, and a run with it is five times slower. Memory is bounded by the
# allocator of the targets, which refuses more than 1 GiB.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:?number of runs}
shift
logs=${FUZZ_LOGS:-/tmp/fuzz-logs}
mkdir -p "$logs"
if (($#)); then targets=("$@"); else mapfile -t targets < <(cargo +nightly fuzz list); fi
cargo +nightly fuzz build --sanitizer none
failed=0
for target in "${targets[@]}"; do
  mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
  log=$logs/$target.txt
  start=$SECONDS
  status=passed
  "fuzz/target/x86_64-unknown-linux-gnu/release/$target" -runs="$runs" -timeout=10 -rss_limit_mb=1536 -max_len=16384 \
    -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" "fuzz/corpus/$target" "fuzz/seeds/$target" \
    >"$log" 2>&1 || { status="FAILED, see $log"; failed=1; }
  done=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 || true)
  echo "$target: ${done:-?} runs, ${coverage:-no coverage}, $((SECONDS - start)) s, $status"
done
exit "$failed"
