#!/usr/bin/env bash
#
# The items of a command as an array of SLURM.
#
#     scripts/distributed/slurm.sh COMMAND..
#     scripts/distributed/slurm.sh switchable-quant report --model DIR --workers 8 --out runs/report
#
# Submits what is missing with `sbatch --wait`, with further options from the variable SBATCH_OPTIONS
# (`--partition short --time 1:00:00`), and submits again what is listed afterwards. The folder must be shared by all nodes;
# each task leaves item-N.log beside the results. May be stopped and started again at any time: `scancel` what still runs first.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/rounds.sh"
[ $# -ge 1 ] || { sed -n '3,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
command -v sbatch >/dev/null || { echo "sbatch is not here" >&2; exit 1; }

engine() {
    # shellcheck disable=SC2086 # several options
    sbatch --wait ${SBATCH_OPTIONS:-} "$1"
}
rounds engine slurm "$@"
