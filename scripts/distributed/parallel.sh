#!/usr/bin/env bash
#
# The items of a command, several at a time.
#
#     scripts/distributed/parallel.sh JOBS COMMAND..
#     scripts/distributed/parallel.sh 4 switchable-quant report --model DIR --workers 1 --out runs/report
#
# With GNU parallel where it is installed, which reads further options from the variable PARALLEL, such as
# `--sshloginfile HOSTS --workdir .` for machines that share this folder; else with xargs. May be stopped, killed and started
# again at any time.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/rounds.sh"
[ $# -ge 2 ] || { sed -n '3,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
jobs=$1
shift

engine() {
    if command -v parallel >/dev/null; then
        parallel --jobs "$jobs" --retries 3 --line-buffer <"$1"
    else
        tr '\n' '\0' <"$1" | xargs -0 -n 1 -P "$jobs" bash -c
    fi
}
rounds engine shell "$@"
