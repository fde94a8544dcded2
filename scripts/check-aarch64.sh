#!/usr/bin/env bash
#
# Builds the tests of quant-kernels for 64-bit ARM and runs them, on another processor under qemu-user.
#
#     scripts/check-aarch64.sh
#
# Needs, apart from cargo:
#
#   the standard library of the target   `rustup target add aarch64-unknown-linux-gnu`, which this script tries.
#                                        Without rustup: a distribution's Rust of at least the version that
#                                        Cargo.toml names, and its library for the other architecture, such as
#                                        Debian's `libstd-rust-dev:arm64` after `dpkg --add-architecture arm64`
#   a linker                             Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross
#   an emulator                          Debian: qemu-user
#
# A release of the distribution that is too old can be helped by a newer one in a folder of its own
# (`mmdebstrap --architectures=amd64,arm64 --include=rustc,cargo,libstd-rust-dev:arm64,… SUITE FOLDER`) and this
# script run there by chroot, with CARGO_NET_OFFLINE=true and the registry's folder mounted where there is no
# network. On an ARM machine neither linker nor emulator is needed. Building takes about half an hour on 2 cores
# at first, running a few minutes.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=aarch64-unknown-linux-gnu
missing() { echo "not run: $1" >&2; exit 1; }

if [[ ! -d "$(rustc --print target-libdir --target $target)" ]]; then
  command -v rustup >/dev/null || missing "there is no standard library for $target, and no rustup to install it"
  rustup target add $target || missing "rustup cannot install the standard library for $target"
fi

if [[ "$(uname -m)" != aarch64 ]]; then
  command -v aarch64-linux-gnu-gcc >/dev/null || missing "there is no aarch64-linux-gnu-gcc"
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
  export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
  if [[ -z "${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER:-}" ]]; then
    qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static) || missing "there is no qemu-aarch64"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$qemu -L ${QEMU_LD_PREFIX:-/usr/aarch64-linux-gnu}"
  fi
fi

cargo test -p quant-kernels --features autodiff,flex,ndarray --target $target --lib --test quantisation --test packed "$@"
