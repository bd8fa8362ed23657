#!/bin/bash
#SBATCH --job-name=siamese
#SBATCH --nodes=1 --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue --open-mode=append --signal=B:USR1@120
# Train the verification of faces: `sbatch slurm/siamese.sh data.set=lfw key=value ...` in the checkout.
# sbatch runs a copy of this file, so job.sh is beside it or in the folder in which sbatch was typed.
exec bash "$(realpath -eqs "$(dirname "$0")"/job.sh "$SLURM_SUBMIT_DIR"/{slurm/,}job.sh | grep -m 1 . ||
    echo "error: no checkout in $PWD, type sbatch in one")" task=siamese "$@"
