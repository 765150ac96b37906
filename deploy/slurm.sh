#!/usr/bin/env bash
# One video on all GPUs of a SLURM job, or a list of videos on an array of jobs with one GPU each:
#
#   sbatch deploy/slurm.sh --task_type text_to_video --prompt "A swan on a lake" --cfg_parallel --output swan.mp4
#   sbatch --nodes=2 deploy/slurm.sh ...        16 GPUs of two machines
#   sbatch --array=0-3 --ntasks-per-node=1 --gpus-per-node=1 deploy/slurm.sh --jobs list.csv --shard %a/4 --resume ...
#
# Arguments are those of generate_video.py; %a becomes the number of the array's job. PYTHON is the interpreter to use.
# Every process must see all GPUs of its machine: do not give --gpus-per-task.
#SBATCH --job-name=videogen
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=02:00:00
#SBATCH --output=%x-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$PWD}"

arguments=("${@//%a/${SLURM_ARRAY_TASK_ID:-0}}")
if [ "${SLURM_NTASKS:-1}" -gt 1 ]; then
  # The processes find each other at the first machine; with these two set, videogen reads its rank from SLURM.
  nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
  export MASTER_ADDR=${nodes%%$'\n'*} MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
  arguments+=(--use_usp)
fi
exec srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" generate_video.py "${arguments[@]}"
