#!/usr/bin/env bash
#
# Runs the portable kernels and the readers of quant-kernels in Miri, which finds undefined behaviour that no
# hardware shows: reads of memory that was never written, of the wrong provenance, out of bounds, data races.
#
#     scripts/check-miri.sh
#
# Needs `rustup toolchain install nightly --component miri,rust-src`.
#
# NOT RUN YET. Which tests and flags it takes is by reading; remove this paragraph with the first run.
#
# What runs, and what does not:
#
#   `packed`                  packing, products, nested codes and the reader of files. Under `cfg(miri)` the tests take
#                             fewer sizes and widths, as Miri is about a thousand times slower, `whole-files` reads a
#                             file instead of mapping it, as Miri has no maps of files, and tests that need burn's
#                             tensors are ignored
#   unit tests of `cpu`       blocks, elementary functions and the choice of instructions. Those of attention and of
#                             learned steps are left out: they run through `gemm` and burn
#   intrinsics                never: Miri reports no vector instructions beyond those of every x86-64, so that the
#                             portable kernels are chosen. scripts/check-sanitizer.sh is for the others
#
# rayon runs on one thread: the work-stealing of crossbeam-epoch is not what is tested, and leaks its last garbage on
# purpose (`-Zmiri-ignore-leaks`) and is sound under tree borrows alone. Files and environment need
# `-Zmiri-disable-isolation`.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export MIRIFLAGS="${MIRIFLAGS:-} -Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows"
export MIRIFLAGS="$MIRIFLAGS -Zmiri-permissive-provenance"
export RAYON_NUM_THREADS=1 PROPTEST_CASES=2
export CARGO_TARGET_DIR=${MIRI_TARGET_DIR:-target/miri}

miri() { cargo +nightly miri test -p quant-kernels --features autodiff,flex,ndarray "$@"; }
miri --lib -- cpu::blocks cpu::elementary cpu::instruction_set packed:: spec::
miri --test packed
