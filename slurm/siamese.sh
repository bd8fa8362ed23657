#!/bin/bash
#SBATCH --job-name=siamese
#SBATCH --nodes=1 --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue --open-mode=append --signal=B:USR1@120
# Are two pictures of the same person?   sbatch --nodes=4 slurm/siamese.sh data.set=lfw key=value ...
# Type it in the checkout. Another partition, account or time: options of sbatch. In an salloc: bash slurm/siamese.sh
here=$(cd "$(dirname "$0")/.." && pwd) runs=runs # under sbatch a copy of this file runs, which lies elsewhere
for place in "${SLURM_SUBMIT_DIR:-}" "$(dirname "${SLURM_SUBMIT_DIR:-}")"; do
    [ -e "$here/slurm/job.sh" ] || here=$place
done
export ROSTRO_CHECKOUT=$here
for word; do [ "${word#runs=}" = "$word" ] || runs=${word#runs=}; done
bound=$runs/.jobs/${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-${SLURM_JOB_ID:-}}
[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || [ ! -s "$bound" ] || here=$runs/$(cat "$bound")/code # a requeue: the run's code
[ -e "$here/slurm/job.sh" ] || { echo "error: no checkout in ${SLURM_SUBMIT_DIR:-$PWD}: cd there, then sbatch" >&2; exit 2; }
exec bash "$here/slurm/job.sh" task=siamese "$@"
