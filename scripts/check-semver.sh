#!/usr/bin/env bash
# What of the crates' public interface changed so that users would have to change with it.
#
#   scripts/check-semver.sh [REVISION] [-- FLAGS]
#
# REVISION is what is compared with, by default the last release (a tag v*). FLAGS go to cargo-semver-checks, such as
# `-p quant-kernels` for one crate. Before 1.0 a minor version may break, which cargo-semver-checks knows.
set -euo pipefail
cd "$(dirname "$0")/.."

revision=
if [[ $# -gt 0 && $1 != -- ]]; then revision=$1; shift; fi
if [[ ${1:-} == -- ]]; then shift; fi
if [[ $# -gt 0 ]]; then flags=("$@"); else flags=(--workspace --exclude switchable-quant-examples --exclude switchable-quant-benches); fi

[[ -n $revision ]] || revision=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)
if [[ -z $revision ]]; then
  echo "not run: there is no release yet; name a revision to compare with"
elif ! cargo semver-checks --version >/dev/null 2>&1; then
  echo "not run: no cargo-semver-checks (cargo install cargo-semver-checks --locked)"
else
  cargo semver-checks check-release --baseline-rev "$revision" "${flags[@]}"
fi
