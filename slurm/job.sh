#!/bin/bash
# The one batch body: start the ranks of a run, pass signals on, requeue where that is due. launch/batch.py
# decides. A job script such as slurm/siamese.sh is #SBATCH lines and one exec of this file with task=NAME and
# the user's words. It also runs by `bash slurm/siamese.sh` in an salloc. Partition, account and time are
# options of sbatch. No `set -u`, no `set -e`: the site's lines (modules, conda) run in this shell.

python='' ranks='' told='' RUN='' mark=rostro-$$

# Signals come at any moment: `wait` then returns at once, other commands end first. srun passes USR1 (the
# time is nearly over) to the ranks. SLURM itself sends them TERM when it ends the job. Ctrl-C in an salloc
# reaches this shell only; TERM to srun would kill the ranks, so their step is signalled.
hear() {
    told=$1
    [ -n "$ranks" ] || return
    case $1 in
        USR1) kill -USR1 "$ranks" ;;
        INT) scancel --signal=TERM "$(squeue --noheader --steps --job="$SLURM_JOB_ID" --format='%i %j' |
            awk -v name="$mark" '$2 == name {print $1}')" ;;
    esac 2>/dev/null
}

# Act on the end of the ranks or of the site's lines, whatever it was, and exit.
leave() {
    local status=$1 unheard=$told
    trap - EXIT
    [ -z "$ranks" ] || unheard=
    # shellcheck disable=SC2086 # one word or none
    PYTHONPATH=$RUN/code PYTHONSAFEPATH=1 "$python" -m launch.batch end "$RUN" "$status" $unheard
    status=$?
    [ "$told" != INT ] || exit 130
    [ $status -eq 10 ] || exit $status
    echo "job $job goes back into the queue"
    scontrol requeue "$job" || exit 1
    sleep 120 # SLURM ends this script
    exit
}

# Export the file that holds the path of this job's run: its place depends on the job alone, and all nodes see
# it. A requeued job then runs the run's own copy of this script.
use_own_code() {
    local own state=${XDG_STATE_HOME:-$HOME/.local/state}
    export ROSTRO_BINDING=$state/rostro/jobs/${SLURM_CLUSTER_NAME:-cluster}-$job
    if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [ -s "$ROSTRO_BINDING" ]; then
        own=$(cat "$ROSTRO_BINDING")/code/slurm/job.sh
        [ ! "$own" -ef "$0" ] || return # ROSTRO_CHECKOUT was set by the checkout's script
    fi
    export ROSTRO_CHECKOUT=$code
    [ ! -e "$own" ] || exec bash "$own" "$@"
}

train() {
    local code word plan line setup='' status=0 RANKS=() PROGRAM=() program=()
    job=${SLURM_JOB_ID:-}
    code=$(cd "$(dirname "$0")/.." && pwd) # the checkout at the first start, the run's copy after a requeue
    [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    use_own_code "$@"
    for word in INT TERM USR1; do
        # shellcheck disable=SC2064 # expanded now
        trap "hear $word" $word
    done

    # The python of ROSTRO_PYTHON, of the active environment, of the checkout, or the first on the path.
    python=${ROSTRO_PYTHON:-}
    for word in "${VIRTUAL_ENV:-/nowhere}" "$ROSTRO_CHECKOUT/.venv"; do
        [ -n "$python" ] || { [ ! -x "$word/bin/python" ] || python=$word/bin/python; }
    done
    [ -n "$python" ] || python=$(command -v python3)
    export PYTHONPATH=$code${PYTHONPATH:+:$PYTHONPATH}
    unset RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT ROSTRO_ATTEMPT

    plan=$(trap '' INT && PYTHONSAFEPATH=1 "$python" -m launch.batch start "$@")
    status=$?
    [ $status -ne 11 ] || exit 0 # asked to stop
    [ $status -eq 0 ] || exit $status
    while IFS= read -r line; do # a kind and a value a line: launch/start/shell.py
        case $line in
            'run '*) RUN=${line#run } ;;
            'ranks '*) RANKS+=("${line#ranks }") ;;
            'program '* | 'variable '*) program+=("$line") ;;
            'setup '*) setup+=${line#setup }$'\n' ;;
        esac
    done <<<"$plan"
    trap 'leave $?' EXIT
    echo "job $job, start ${SLURM_RESTART_COUNT:-0}: run $RUN"
    eval "$setup" || exit # modules, the site's lines; changes into RUN/code
    for line in "${program[@]}"; do
        case $line in
            'variable '*) line=${line#variable } && PROGRAM+=("${!line:-}") ;;
            *) PROGRAM+=("${line#program }") ;;
        esac
    done
    [ -z "$told" ] || exit 0 # there is nothing to be saved

    srun "${RANKS[@]}" --job-name="$mark" --output="$RUN/logs/rank%t.log" --open-mode=append \
        "${PROGRAM[@]}" -u -m hpc.rank "$RUN" &
    ranks=$!
    while :; do
        wait $ranks
        status=$?
        kill -0 $ranks 2>/dev/null || break
    done
    exit $status
}

train "$@"; exit
