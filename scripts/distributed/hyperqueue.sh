#!/usr/bin/env bash
#
# The items of a command on workers of HyperQueue.
#
#     scripts/distributed/hyperqueue.sh COMMAND..
#     scripts/distributed/hyperqueue.sh switchable-quant report --model DIR --out runs/report
#
# With `hq` the server that is running is used (`hq server start`, `hq worker start`, `hq alloc add slurm …`): its workers
# must see this folder. It opens two ports to them, encrypted with a key in ~/.hq-server. Without `hq` the Python package
# `hyperqueue` starts a server and workers on this machine alone, as many as HQ_WORKERS says (2), and stops them at the end.
# HyperQueue runs an item again when its worker is lost; `hq job wait` returns 0 when tasks have failed, so that what
# counts is what is missing afterwards. May be stopped, killed and started again at any time.
#
# PYTHON      the Python that has the package, python3
# HQ_WORKERS  workers on this machine, where there is no `hq`

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/rounds.sh"
[ $# -ge 1 ] || { sed -n '3,17s/^# \{0,1\}//p' "$0" >&2; exit 2; }

with_hq() {
    local job
    job=$(hq job submit-file --output-mode quiet "$1")
    hq job wait "$job" >/dev/null
}

with_package() {
    "${PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/hyperqueue_local.py" "$1" "${HQ_WORKERS:-2}"
}

if command -v hq >/dev/null; then
    rounds with_hq hq-toml "$@"
else
    "${PYTHON:-python3}" -c 'import hyperqueue' || { echo "neither hq nor the Python package hyperqueue is here" >&2; exit 1; }
    rounds with_package lines "$@"
fi
