#!/bin/bash
#SBATCH --job-name=unet_persons
#SBATCH --nodes=1 --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue --open-mode=append --signal=B:USR1@120
# Masks of persons by a U-Net.   sbatch slurm/unet_persons.sh data.set=person_seg key=value ...
# Type it in the checkout. Another partition, account or time: options of sbatch. In an salloc: bash slurm/unet_persons.sh
here=$(cd "$(dirname "$0")/.." && pwd) # under sbatch a copy of this file runs, which lies elsewhere
for place in "${SLURM_SUBMIT_DIR:-}" "$(dirname "${SLURM_SUBMIT_DIR:-}")"; do
    [ -e "$here/slurm/job.sh" ] || here=$place
done
# What holds the path of this job's run: in a place that depends on the job alone, and that all nodes see.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-${SLURM_JOB_ID:-}}
export ROSTRO_BINDING=${XDG_STATE_HOME:-$HOME/.local/state}/rostro/jobs/${SLURM_CLUSTER_NAME:-cluster}-$job
export ROSTRO_CHECKOUT=$here
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [ -s "$ROSTRO_BINDING" ]; then # a requeue: the run's own code
    run=$(cat "$ROSTRO_BINDING")
    [ ! -e "$run/code/slurm/job.sh" ] || here=$run/code
fi
[ -e "$here/slurm/job.sh" ] || { echo "error: no checkout in ${SLURM_SUBMIT_DIR:-$PWD}: cd there, then sbatch" >&2; exit 2; }
exec bash "$here/slurm/job.sh" task=unet_persons "$@"
