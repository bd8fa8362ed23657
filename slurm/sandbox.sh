#!/bin/bash
# A real SLURM on one machine, to try a site's settings at home: munge, slurmctld and several slurmd.
#
#   slurm/sandbox.sh up DIR         start it (again: does nothing); everything it writes is in DIR
#   eval "$(slurm/sandbox.sh env DIR)"    let sbatch, srun, squeue ... of this shell talk to it
#   slurm/sandbox.sh status DIR     show nodes and jobs
#   slurm/sandbox.sh down DIR       end jobs and daemons, remove what `up` wrote, and DIR if it is empty then
#
# Partitions: main (the default, of higher tier) and preempt, whose jobs are requeued if main needs the nodes.
# Settings are variables before `up`: NODES=4 CPUS=4 GPUS=4 (pretended) MEM=16000 PORT=27100 KILL_WAIT=5
# GRACE_TIME=30 REQUEUE=1 PREEMPT_MODE=REQUEUE (CANCEL, SUSPEND, OFF) CRED_EXPIRE=5 SLURMD_TIMEOUT=15
# EXTRA="a line of slurm.conf"
# It needs Debian's packages slurmctld slurmd slurm-client munge, and no other rights than yours.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
DAEMONS=(munged slurmctld slurmd)
WRITTEN='' # set if this call wrote slurm.conf: only then may it remove everything again

fail() { echo "error: $*" >&2; exit 1; }

settings() {
    NODES=${NODES:-4} CPUS=${CPUS:-4} GPUS=${GPUS:-4} MEM=${MEM:-16000} PORT=${PORT:-27100}
    KILL_WAIT=${KILL_WAIT:-5} GRACE_TIME=${GRACE_TIME:-30} REQUEUE=${REQUEUE:-1}
    PREEMPT_MODE=${PREEMPT_MODE:-REQUEUE}
    CRED_EXPIRE=${CRED_EXPIRE:-5} SLURMD_TIMEOUT=${SLURMD_TIMEOUT:-15} EXTRA=${EXTRA:-}
    LAST=$((NODES - 1)) HOST=$(hostname -s) ME=$(id -un)
    PREEMPT_TYPE=partition_prio GANG=
    [ "$PREEMPT_MODE" != OFF ] || PREEMPT_TYPE=none
    [ "$PREEMPT_MODE" != SUSPEND ] || GANG=,GANG
    DEVICES=(/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty)
    [ "$GPUS" -le ${#DEVICES[@]} ] || fail "GPUS=$GPUS: at most ${#DEVICES[@]} can be pretended"
}

# Print the process in a pid file, if it still is that daemon.
pid_of() {
    local pid
    pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] &&
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] && echo "$pid"
}

# Job ids never repeat: submitit would take an older job's results for the new one's.
write_conf() {
    WRITTEN=1
    local first=$(($(date +%s) % 100000 * 10 + 1000))
    cat >"$D/slurm.conf" <<CONF
ClusterName=sandbox
FirstJobId=$first
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$ME
SlurmdUser=$ME
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$D/munge/socket,cred_expire=$CRED_EXPIRE
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool/%n
SlurmctldPidFile=$D/slurmctld.pid
SlurmdPidFile=$D/%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/%n.log
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/$PREEMPT_TYPE
PreemptMode=$PREEMPT_MODE$GANG
JobRequeue=$REQUEUE
KillWait=$KILL_WAIT
CompleteWait=0
MinJobAge=3600
InactiveLimit=0
SlurmctldTimeout=30
SlurmdTimeout=$SLURMD_TIMEOUT
$([ "$GPUS" -eq 0 ] || echo "GresTypes=gpu")
NodeName=n[0-$LAST] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[$((PORT + 10))-$((PORT + 10 + LAST))] \
CPUs=$CPUS RealMemory=$MEM $([ "$GPUS" -eq 0 ] || echo "Gres=gpu:$GPUS") State=UNKNOWN
PartitionName=main Nodes=n[0-$LAST] Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=preempt Nodes=n[0-$LAST] MaxTime=INFINITE State=UP PriorityTier=1 \
PreemptMode=$PREEMPT_MODE GraceTime=$GRACE_TIME
$EXTRA
CONF
    : >"$D/gres.conf"
    # SLURM wants character devices; nothing opens them. The flag makes it set CUDA_VISIBLE_DEVICES.
    [ "$GPUS" -eq 0 ] ||
        echo "NodeName=n[0-$LAST] Name=gpu File=$(IFS=,; echo "${DEVICES[*]:0:$GPUS}") Flags=nvidia_gpu_env" \
            >"$D/gres.conf"
}

start_munge() {
    mkdir -p "$D/munge"
    chmod 755 "$D" "$D/munge" # munged refuses a socket that others cannot reach
    if [ ! -s "$D/munge/key" ]; then
        (umask 077; head -c 1024 /dev/urandom >"$D/munge/key")
    fi
    pid_of "$D/munge/munged.pid" munged >/dev/null ||
        munged --force --key-file="$D/munge/key" --socket="$D/munge/socket" --pid-file="$D/munge/munged.pid" \
            --log-file="$D/munge/log" --seed-file="$D/munge/seed" --num-threads=2 2>>"$D/munge/errors" ||
        fail "munged did not start: see $D/munge/log"
}

ready() { # print how many nodes may take jobs
    sinfo -h -p main -t idle,mix,alloc -o %D 2>/dev/null | awk '{n += $1} END {print n + 0}'
}

up() {
    local daemon node
    for daemon in "${DAEMONS[@]}"; do
        command -v "$daemon" >/dev/null ||
            fail "$daemon is not installed: type apt-get install slurmctld slurmd slurm-client munge"
    done
    settings
    is_sandbox || [ -z "$(ls -A "$D")" ] || fail "$D holds other files: name a folder that is new or empty"
    mkdir -p "$D/state" "$D/log"
    [ -s "$D/slurm.conf" ] && pid_of "$D/slurmctld.pid" slurmctld >/dev/null || write_conf
    NODES=$(awk -F '[][-]' '/^NodeName=/ {print $3 + 1}' "$D/slurm.conf") # of a sandbox that is up already
    start_munge
    pid_of "$D/slurmctld.pid" slurmctld >/dev/null || slurmctld -f "$D/slurm.conf" ||
        give_up "slurmctld refused its settings"
    for node in $(seq 0 $((NODES - 1))); do
        mkdir -p "$D/spool/n$node"
        pid_of "$D/n$node.pid" slurmd >/dev/null ||
            slurmd -f "$D/slurm.conf" -N "n$node" 2>>"$D/log/n$node.log"
    done
    for _ in $(seq 150); do
        if [ "$(ready)" = "$NODES" ]; then
            echo "SLURM with $NODES nodes is up in $D"
            echo "eval \"\$($0 env $D)\"    lets this shell use it"
            return
        fi
        sleep 0.1
    done
    tail -n 3 "$D"/log/*.log >&2
    give_up "SLURM did not come up in 15 seconds: try another PORT (PORT=$PORT)"
}

give_up() {
    if [ -n "$WRITTEN" ]; then
        stop_daemons
        clear_away
    fi
    fail "$*"
}

is_sandbox() { [ -s "$D/slurm.conf" ] && grep -q '^ClusterName=sandbox$' "$D/slurm.conf"; }

# Remove only what `up` wrote: other files may be beside it.
clear_away() {
    local name
    for name in slurm.conf gres.conf state log spool munge slurmctld.pid; do rm -rf "${D:?}/$name"; done
    rm -f "$D"/n[0-9]*.pid
    rmdir "$D" 2>/dev/null || echo "$D is kept: it holds other files" >&2
}

status() {
    local node
    pid_of "$D/slurmctld.pid" slurmctld >/dev/null || fail "no SLURM runs in $D: type $0 up $D"
    sinfo -N -l
    squeue
}

# All are asked at once, and waited for together; munged last, since the others need it to end.
stop_daemons() {
    local file pid all=
    for file in "$D"/n[0-9]*.pid; do
        all+=" $(pid_of "$file" slurmd || true)"
    done
    all+=" $(pid_of "$D/slurmctld.pid" slurmctld || true)"
    end_all $all
    end_all $(pid_of "$D/munge/munged.pid" munged || true)
}

end_all() {
    local pid
    for pid; do kill "$pid" 2>/dev/null || true; done
    for pid; do
        for _ in $(seq 80); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
    done
}

# End what jobs left, then the daemons, and remove what `up` wrote.
down() {
    local pid file
    [ -e "$D" ] || return 0
    is_sandbox || fail "$D is no sandbox: nothing was removed"
    if pid_of "$D/slurmctld.pid" slurmctld >/dev/null; then
        scancel --user="$(id -un)" 2>/dev/null || true
        for _ in $(seq 50); do
            [ -n "$(squeue -h 2>/dev/null)" ] || break
            sleep 0.1
        done
    fi
    stop_daemons
    # A killed slurmd leaves its step daemons and the processes of its jobs.
    for file in $(grep -lzxF "SLURM_CONF=$D/slurm.conf" /proc/[0-9]*/environ 2>/dev/null || true); do
        pid=${file//[^0-9]/}
        if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = slurmstepd ] ||
            grep -qz '^SLURM_JOB_ID=' "$file" 2>/dev/null; then
            [ "$pid" = $$ ] || kill -9 "$pid" 2>/dev/null || true
        fi
    done
    clear_away
}

[ $# -eq 2 ] || fail "type $0 up|env|status|down DIR"
case $1 in
    up) D=$(mkdir -p "$2" && cd "$2" && pwd) || exit 1 ;;
    env | status | down) D=$(cd "$2" 2>/dev/null && pwd || echo "$2") ;;
    *) fail "$1 is not known: type $0 up|env|status|down DIR" ;;
esac
export SLURM_CONF=$D/slurm.conf
case $1 in
    env)
        [ -s "$D/slurm.conf" ] || fail "no SLURM runs in $D: type $0 up $D"
        echo "export SLURM_CONF=$D/slurm.conf"
        ;;
    *) "$1" ;;
esac
