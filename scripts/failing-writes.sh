#!/usr/bin/env bash
# Every operation of a command on files fails in turn, by strace: scripts/failing-writes.sh
#
# The k-th bringing to the disk or renaming of a file or folder fails with EIO, for k = 1, 2, 3, 5, 8, ... until the command does not
# come so far. It must end with 1 and an error that names a file of its folder, and when it is started again in the
# same folder it must end well with the results of a run that nothing disturbed. Needs strace; without it a line
# says so.
#
#   EXAMPLES   folder of the programs, target/release/examples by default
set -euo pipefail
cd "$(dirname "$0")/.."
examples=$(cd "${EXAMPLES:-${CARGO_TARGET_DIR:-target}/release/examples}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! strace -f -e trace=fsync -e inject=fsync:error=EIO:when=1 true >/dev/null 2>&1; then
  echo "not run: strace is not installed or may not trace"
  exit 0
fi
cat docs/*.md >"$work/text.txt"
fail() { echo "FAILED: $*" >&2; cat "$work/stderr" >&2; exit 1; }

# What a folder holds, but for how long the work took.
contents() {
  (cd "$1" && find . -type f | sort | while read -r file; do
    echo "$file $(grep -av '"[a-z_]*seconds"' "$file" | sha256sum)"
  done)
}

check() {
  local name=$1 out=$work/out failed=0 call k next code
  shift
  rm -rf "$out"
  "$examples/$name" "$@" --out "$out" >/dev/null 2>"$work/stderr" </dev/null || fail "$name, undisturbed"
  contents "$out" >"$work/expected"
  for call in fsync rename renameat renameat2; do
    k=1 next=2
    while :; do
      rm -rf "$out"
      code=0
      strace -f -qq -o "$work/trace" -e trace=$call -e inject=$call:error=EIO:when=$k \
        "$examples/$name" "$@" --out "$out" >/dev/null 2>"$work/stderr" </dev/null || code=$?
      grep -q INJECTED "$work/trace" || break
      [[ $code -le 1 ]] || fail "$name, $call $k: exit code $code"
      if [[ $code -eq 1 ]]; then
        grep -q "^error: .*$out" "$work/stderr" || fail "$name, $call $k: the error names no file of its folder"
      fi
      "$examples/$name" "$@" --out "$out" >/dev/null 2>"$work/stderr" </dev/null || fail "$name, after $call $k"
      contents "$out" | diff "$work/expected" - >"$work/stderr" || fail "$name, after $call $k: other results"
      failed=$((failed + 1))
      next=$((k + next)) k=$((next - k))
    done
  done
  echo "$name: $failed failures"
}

check cloze_questions --text "$work/text.txt" --questions 40 --words 30
check evaluate --limit 4 --bits 4 --quiet
check pack_gpt2 --bits 4
check greedy_search --limit 2 --bits 2 --quiet
