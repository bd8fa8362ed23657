#!/bin/bash
# The one batch body: start the ranks of a run, pass signals on, requeue where that is due. slurm/siamese.sh calls it
# with task=... and the user's words; it also runs by `bash slurm/siamese.sh` inside an salloc. launch/batch.py decides.
set -u

train() {
    local job=${SLURM_JOB_ID:-} code checkout word plan status
    code=$(cd "$(dirname "$0")/.." && pwd) # the checkout at the first start, the run's copy after a requeue
    checkout=${ROSTRO_CHECKOUT:-$code}
    [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

    # The python of ROSTRO_PYTHON, of the active environment, of the checkout, or the first on the path.
    local python=${ROSTRO_PYTHON:-}
    for word in "${VIRTUAL_ENV:-/nowhere}/bin/python" "$checkout/.venv/bin/python" "$(command -v python3)"; do
        [ -n "$python" ] || { [ ! -x "$word" ] || python=$word; }
    done
    export PYTHONPATH=$code${PYTHONPATH:+:$PYTHONPATH}
    unset RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT ROSTRO_ATTEMPT

    plan=$(PYTHONSAFEPATH=1 "$python" -m launch.batch start "$@")
    status=$?
    [ $status -ne 11 ] || exit 0 # asked to stop
    [ $status -eq 0 ] || exit $status
    eval "$plan" # RUN RANKS PROGRAM, modules, the site's lines; changes into RUN/code
    echo "job $job, start ${SLURM_RESTART_COUNT:-0}: run $RUN"

    # SLURM tells this shell that the time is nearly over; the ranks must hear it. `wait` returns at every signal.
    trap 'scancel --signal=USR1 "$SLURM_JOB_ID"' USR1
    trap : TERM
    # shellcheck disable=SC2086 # RANKS and PROGRAM are words
    srun $RANKS --output="$RUN/logs/rank%t.log" --open-mode=append $PROGRAM -u -m hpc.rank "$RUN" &
    local pid=$!
    while :; do
        wait $pid
        status=$?
        kill -0 $pid 2>/dev/null || break
    done

    PYTHONPATH=$RUN/code PYTHONSAFEPATH=1 "$python" -m launch.batch end "$RUN" $status
    status=$?
    [ $status -eq 10 ] || exit $status
    echo "job $job goes back into the queue"
    scontrol requeue "$job" || exit 1
    sleep 120 # SLURM ends this script
}

train "$@"
exit
