#!/bin/bash
# sbatch train/slurm.sh --stage pretrain --from RUN --shards DIR --output-dir RUN ...
#
# One task a node; torchrun starts a rank for each GPU of it. Two minutes before the time is up Slurm signals the tasks;
# torchrun would not hand SIGUSR1 on (and would end of it), so it goes to the ranks by name. The job that is queued behind it, with the same
# line, goes on from the checkpoint.
#SBATCH --job-name=griffon
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --requeue

set -euo pipefail
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# The batch script gets the signal (B:); a step of its own carries it to the ranks on every node.
trap 'srun --overlap --ntasks-per-node=1 pkill -USR1 -f "python.* -u -m griffon_train run" || true' USR1

srun torchrun --nnodes "$SLURM_NNODES" --nproc_per_node "${SLURM_GPUS_ON_NODE:-8}" \
  --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:29500" \
  -m griffon_train run "$@" &
wait $! || wait $!  # the first ends with the signal, the second with torchrun
