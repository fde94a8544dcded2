#!/usr/bin/env bash
#
# Runs the tests of the kernels once for each set of vector instructions that this processor has below its best, held down to
# it, and prints how many ran on which. On any x86-64 that includes the portable kernels, and AVX2 where it is.
#
#     scripts/check-instruction-sets.sh [--all]
#
# The best set that the processor has is left out unless --all is given: `cargo test --workspace` runs with it.
#
#   SWITCHABLE_QUANT_REQUIRE_INSTRUCTION_SETS   sets that must be there, such as avx2,avx512-vnni: a processor
#                                               that lacks one is a failure
#
# The programs are those of `cargo test --workspace`: after it, nothing is built here.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

messages=$(mktemp)
trap 'rm -f "$messages"' EXIT
cargo test --workspace --no-run --quiet --message-format=json --lib --test quantisation --test packed --test switching \
  >"$messages"

# The test program of a name in a crate.
program() {
  local found
  found=$(sed -n "/crates\/$1[#\"]/s/.*\"name\":\"$2\".*\"executable\":\"\([^\"]*\)\".*/\1/p" "$messages" | tail -n 1)
  [[ -n "$found" ]] || { echo "there is no test program $2 of $1" >&2; exit 1; }
  echo "$found"
}

kernels=$(program quant-kernels quant_kernels)
programs=("$kernels" "$(program quant-kernels quantisation)" "$(program quant-kernels packed)"
  "$(program switchable-lora switching)")
crates=(quant-kernels quant-kernels quant-kernels switchable-lora)

of_kernels() { (cd crates/quant-kernels && "$kernels" "$@"); }
available=$(of_kernels --nocapture the_sets_that_the_environment_requires | sed -n 's/.*instruction sets: //p')
[[ -n "$available" ]] || { echo "the processor's instruction sets are not known" >&2; exit 1; }

chosen() { of_kernels --nocapture the_best_set_is_the_highest | sed -n 's/.*chosen: //p'; }
best=
[[ -n "${SWITCHABLE_QUANT_INSTRUCTIONS:-}" || "${1:-}" == --all ]] || best=$(chosen)
for set in portable avx2 avx512 avx512-vnni avx512-bf16; do
  if [[ ", $available," != *", $set,"* ]]; then
    echo "$set: not run: this processor lacks it"
    continue
  fi
  if [[ "$set" == "$best" ]]; then
    echo "$set: what every test runs with that is not held down; --all runs it here as well"
    continue
  fi
  export SWITCHABLE_QUANT_INSTRUCTIONS=$set
  chosen=$(chosen)
  [[ "$chosen" == "$set" ]] || { echo "$set was asked for, $chosen is what runs" >&2; exit 1; }
  passed=0
  for at in "${!programs[@]}"; do
    output=$(cd "crates/${crates[at]}" && "${programs[at]}" --quiet 2>&1) || {
      status=$?
      printf '%s\n%s: %s ended with status %s\n' "$output" "$set" "${programs[at]}" "$status" >&2
      exit 1
    }
    of_program=$(sed -n 's/^test result: ok\. \([0-9]*\) passed; 0 failed.*/\1/p' <<<"$output")
    passed=$((passed + ${of_program:?the program says no result}))
  done
  echo "$set: $passed tests passed"
done
