#!/usr/bin/env bash
# Commands that write meet a folder that cannot be written and disks that are too small: scripts/full-disk.sh
#
# Each must end with 1 and one error that names a file there; what it did write must not stop it from ending well
# once there is room. Needs root, to mount small file systems in memory; without it a line says so.
#
#   EXAMPLES   folder of the programs, target/release/examples by default
set -euo pipefail
cd "$(dirname "$0")/.."
examples=$(cd "${EXAMPLES:-${CARGO_TARGET_DIR:-target}/release/examples}" && pwd)
work=$(mktemp -d)
disk=$work/disk
mkdir "$disk"
trap 'umount "$disk" 2>/dev/null || true; rm -rf "$work"' EXIT

if [[ $(id -u) -ne 0 ]] || ! mount -t tmpfs -o size=64k tmpfs "$disk" 2>/dev/null; then
  echo "not run: small file systems cannot be mounted here"
  exit 0
fi
umount "$disk"

cat docs/*.md >"$work/text.txt"
fail() { echo "FAILED: $*" >&2; cat "$work/stderr" >&2; exit 1; }

# meet NAME: runs the command in $@; it must fail with 1 and name a file on the disk.
meet() {
  local what=$1 code=0; shift
  "$examples/$1" "${@:2}" >"$work/stdout" 2>"$work/stderr" </dev/null || code=$?
  if [[ $code -eq 0 ]]; then return 0; fi
  [[ $code -eq 1 ]] || fail "$1, $what: exit code $code"
  grep -q "^error: .*$disk" "$work/stderr" || fail "$1, $what: the error names no file of $disk"
  if grep -q "panicked\|internal error" "$work/stderr"; then fail "$1, $what: a panic"; fi
  return 1
}

check() {
  local full=0 size
  mount -t tmpfs -o ro,size=64m tmpfs "$disk"
  meet "read-only" "$@" && fail "$1 says that it wrote to a read-only folder"
  umount "$disk"
  for size in 4k 64k 1m 4m; do
    mount -t tmpfs -o size=$size tmpfs "$disk"
    if meet "$size" "$@"; then umount "$disk"; break; fi
    full=$((full + 1))
    # With room it goes on, or starts anew, and ends well.
    mount -o remount,size=256m "$disk"
    meet "room after $size" "$@" || fail "$1 does not end well once there is room"
    umount "$disk"
  done
  # Room for bytes, but for few names.
  mount -t tmpfs -o size=64m,nr_inodes=3 tmpfs "$disk"
  meet "three names" "$@" && true
  umount "$disk"
  echo "$1: read-only, and $full disks that were too small"
}

check cloze_questions --text "$work/text.txt" --questions 40 --words 30 --out "$disk/out"
check evaluate --limit 4 --bits 4 --quiet --out "$disk/out"
check pack_gpt2 --bits 4 --out "$disk/out"
check export_gguf --model models/english --bits 4 --no-adapter --out "$disk/out"
check allocate --limit 2 --bits 32,2 --average-bits 16 --swaps 0 --quiet --out "$disk/out"
check greedy_search --limit 2 --bits 2 --quiet --out "$disk/out"
check pretrain --text "$work/text.txt" --validation "$work/text.txt" --validation-tokens 200 --vocabulary 300 \
  --layers 1 --embedding 8 --heads 2 --positions 32 --steps 2 --batch 2 --quiet --out "$disk/out"
check robustness --limit 2 --bits 32,3 --quiet --out "$disk/out"
check dynamic_inference --limit 8 --quiet --out "$disk/out"
"$examples/pretrain" --text "$work/text.txt" --validation "$work/text.txt" --validation-tokens 200 --vocabulary 300 \
  --layers 1 --embedding 8 --heads 2 --positions 96 --steps 1 --batch 2 --quiet --out "$work/small" >/dev/null 2>&1
"$examples/cloze_questions" --text "$work/text.txt" --questions 10 --words 30 --out "$work/cloze" >/dev/null
check train_bank --model "$work/small/model" --train "$work/cloze/cloze.json" --base-steps 1 --steps 1 --batch 4 \
  --bits 4 --rank 2 --quiet --out "$disk/out"
check report --limit 2 --search-limit 2 --no-regimes --no-robustness --no-roundings --no-dynamic --swaps 0 --low 3 --quiet \
  --out "$disk/out"
