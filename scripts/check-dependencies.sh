#!/usr/bin/env bash
# Licences, bans and sources of every dependency of both workspaces, and the advisories on them where the
# database can be reached; deny.toml says what is allowed. Needs cargo-deny (`cargo install cargo-deny --locked`).
#
#   ADVISORY_DB   folder that holds clones of advisory databases, to be used as they are, without a network
#
# What could not be checked is said on a line that starts with "not checked"; the exit code is that of what was.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo deny --version >/dev/null 2>&1; then
  echo "not checked: licences, bans, sources, advisories: cargo-deny is not installed"
  exit 0
fi

failed=0
for manifest in Cargo.toml fuzz/Cargo.toml; do
  echo "$manifest"
  cargo deny --manifest-path "$manifest" --config "$PWD/deny.toml" check --hide-inclusion-graph licenses bans sources ||
    failed=1
done

advisories() { cargo deny --config "$config" "$@" check --hide-inclusion-graph advisories; }
config=$PWD/deny.toml
if [[ -n "${ADVISORY_DB:-}" ]]; then
  config=$(mktemp)
  trap 'rm -f "$config"' EXIT
  sed "s|^\[advisories\]|&\ndb-path = \"$ADVISORY_DB\"|" deny.toml >"$config"
  advisories --offline || failed=1
elif output=$(advisories 2>&1); then
  echo "$output"
elif grep -q "failed to fetch advisory database" <<<"$output"; then
  echo "not checked: advisories: the database cannot be reached"
else
  echo "$output"
  failed=1
fi
exit "$failed"
