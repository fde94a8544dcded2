#!/usr/bin/env bash
#
# A command beside a SLURM of one node, this machine, which ends with the command. To try slurm.sh without a cluster:
#
#     sudo apt-get install slurm-wlm
#     sudo scripts/distributed/slurm_local.sh scripts/distributed/slurm.sh COMMAND..
#
# Needs root: the daemons start what others submit. They listen on the ports 6817 and 6818 to whoever holds the munge key of
# this machine. What they write is in a folder that is removed at the end.

set -euo pipefail
[ $# -ge 1 ] || { sed -n '3,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
for program in munged slurmctld slurmd sinfo; do
    command -v "$program" >/dev/null || { echo "$program is not here: apt-get install slurm-wlm" >&2; exit 1; }
done
[ "$(id -u)" -eq 0 ] || { echo "needs root" >&2; exit 1; }

work=$(mktemp -d)
export SLURM_CONF=$work/slurm.conf
started=()
finish() {
    for daemon in "${started[@]}"; do
        [ ! -s "$work/$daemon.pid" ] || kill "$(cat "$work/$daemon.pid")" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT

host=$(hostname -s)
cat >"$SLURM_CONF" <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
StateSaveLocation=$work/controller
SlurmdSpoolDir=$work/node
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=local Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
mkdir "$work/controller" "$work/node"

if ! munge -n >/dev/null 2>&1; then
    install -d -o munge -g munge /run/munge
    started+=(munged)
    touch "$work/munged.pid"
    runuser -u munge -- munged
    cp /run/munge/munged.pid "$work/munged.pid"
fi
started+=(slurmctld slurmd)
slurmctld
slurmd
for _ in $(seq 30); do
    [ "$(sinfo --noheader --states idle --format %D 2>/dev/null)" != 1 ] || break
    sleep 1
done
"$@"
