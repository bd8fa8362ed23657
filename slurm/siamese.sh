#!/bin/bash
#SBATCH --job-name=siamese
#SBATCH --nodes=1 --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue --open-mode=append --signal=B:USR1@120
# Are two pictures of the same person?   sbatch --nodes=4 slurm/siamese.sh data.set=lfw key=value ...
# Type it in the checkout. Another partition, account or time: options of sbatch. In an salloc: bash slurm/siamese.sh
here=$(cd "$(dirname "$0")/.." && pwd) # under sbatch SLURM runs a copy of this file, which lies elsewhere
[ -e "$here/slurm/job.sh" ] || here=${SLURM_SUBMIT_DIR:-$PWD}
[ -e "$here/slurm/job.sh" ] || here=$(dirname "$here")
[ -e "$here/slurm/job.sh" ] || { echo "error: no checkout in $SLURM_SUBMIT_DIR: cd there, then sbatch" >&2; exit 2; }
exec bash "$here/slurm/job.sh" task=siamese "$@"
