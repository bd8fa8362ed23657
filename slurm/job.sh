#!/bin/bash
# The body of every batch script: it starts the ranks of a run, passes signals on and requeues the job when that is due.
# slurm/<job>.sh calls it with task=... and the user's words, also when started by `bash slurm/<job>.sh` inside an
# salloc. Decisions are made in launch/batch.py. `set -u` and `set -e` are left out, because the site's lines (modules,
# conda) run in this shell.

python='' ranks='' told='' RUN='' mark=rostro-$$

# A signal may come at any moment: it interrupts `wait` at once, while other commands finish first. USR1 (the time limit
# is near) goes to srun, which passes it to the ranks. TERM needs no help: SLURM sends it to the ranks when it ends the
# job. Ctrl-C in an salloc reaches only this shell. TERM to srun would kill the ranks, so it is sent to their job step.
hear() {
    told=$1
    [ -n "$ranks" ] || return
    case $1 in
        USR1) kill -USR1 "$ranks" ;;
        INT) scancel --signal=TERM "$(squeue --noheader --steps --job="$SLURM_JOB_ID" --format='%i %j' |
            awk -v name="$mark" '$2 == name {print $1}')" ;;
    esac 2>/dev/null
}

# Runs at exit, however the ranks or the site's lines ended: ask launch.batch what comes next, and do it.
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

train() {
    local code checkout word plan line setup='' status=0 RANKS=() PROGRAM=() program=()
    job=${SLURM_JOB_ID:-}
    code=$(cd "$(dirname "$0")/.." && pwd) # the checkout at the first start, the run's copy after a requeue
    checkout=${ROSTRO_CHECKOUT:-$code}
    [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    for word in INT TERM USR1; do
        # shellcheck disable=SC2064 # $word is expanded now, on purpose
        trap "hear $word" $word
    done

    # The python of ROSTRO_PYTHON, of the active environment, of the checkout, or the first on the path.
    python=${ROSTRO_PYTHON:-}
    for word in "${VIRTUAL_ENV:-/nowhere}/bin/python" "$checkout/.venv/bin/python" "$(command -v python3)"; do
        [ -n "$python" ] || { [ ! -x "$word" ] || python=$word; }
    done
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
    [ -z "$told" ] || exit 0 # no rank has started: there is nothing to save

    srun "${RANKS[@]}" --job-name="$mark" --output="$RUN/logs/rank%t.log" --open-mode=append \
        "${PROGRAM[@]}" -u -m hpc.rank "$RUN" &
    ranks=$!
    [ -z "$told" ] || hear "$told" # it came while srun was being started
    while :; do
        wait $ranks
        status=$?
        kill -0 $ranks 2>/dev/null || break
    done
    exit $status
}

train "$@"; exit
