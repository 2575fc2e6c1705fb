#!/usr/bin/env bash
# A sweep on the machines of a Slurm job: starts Ray on them and hands its arguments to src/sweep.py. From the
# repository, on a file system that all machines share:
#
#   sbatch --nodes=4 --cpus-per-task=16 --gpus-per-node=2 --time=24:00:00 scripts/ray_on_slurm.sh \
#       --configs=qmix,s2q --env-configs=smax --maps=3m,2s3z --seeds=5 --gpus-per-run=0.5 with t_max=2000000
#
# Five minutes before the job's time is over, all runs save a checkpoint and the job is put back into the queue; it then
# goes on where it was. PYTHON names the interpreter (default .venv/bin/python), RAY_PORT the port (default 6379).
#SBATCH --job-name=shoal-sweep
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

fail() {
    printf 'ray_on_slurm.sh: %s\n' "$*" >&2
    exit 1
}

[[ -n ${SLURM_JOB_ID:-} ]] || fail "this is a job script: sbatch --nodes=N --time=HH:MM:SS scripts/ray_on_slurm.sh ..."
(($#)) || fail "say what to run, as to src/sweep.py: --configs=qmix --env-configs=smax ..."
cd "${SLURM_SUBMIT_DIR:-.}"
[[ -f src/sweep.py ]] || fail "$PWD is not the repository: submit the job from there"
python=${PYTHON:-.venv/bin/python}
[[ -x $python ]] || python=$(command -v "$python") || fail "there is no ${PYTHON:-.venv/bin/python}: run make setup, or set PYTHON"
# What Ray's command line does, without its script: that may lie elsewhere or belong to another interpreter.
ray=("$python" -c "import sys; from ray.scripts.scripts import main; sys.exit(main())")

port=${RAY_PORT:-6379}
nodes=${SLURM_JOB_NUM_NODES:-1}
head=${SLURMD_NODENAME:-$(hostname)} # the first machine of the job: this script runs on it
address=$(getent ahostsv4 "$head" | awk "{ print \$1; exit }" || true) # Ray wants a number
[[ -n $address ]] || fail "the address of $head is not known here"
cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-$(nproc)}}
gpus=${SLURM_GPUS_ON_NODE:-0}

# Nothing is reported to anybody; only who holds the key in the home folder may give the machines work.
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
[[ -s ${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token} ]] || "${ray[@]}" get-auth-token --generate >/dev/null

common=(--num-cpus="$cpus" --num-gpus="$gpus" --disable-usage-stats --block)
srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" \
    "${ray[@]}" start --head --node-ip-address="$address" --port="$port" --include-dashboard=false "${common[@]}" &
started=($!)
for ((second = 0; ; second += 2)); do
    (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null && break
    kill -0 "${started[0]}" 2>/dev/null || fail "Ray ended on $head (see above)"
    ((second < 600)) || fail "Ray did not start on $head within ten minutes"
    sleep 2
done
if ((nodes > 1)); then # they join while the first runs begin
    srun --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --overlap --exclude="$head" \
        "${ray[@]}" start --address="$address:$port" "${common[@]}" &
    started+=($!)
fi

"$python" src/sweep.py --address="$address:$port" "$@" &
sweep=$!
stopped=0
trap 'stopped=1; kill -TERM "$sweep" 2>/dev/null || true' TERM INT
status=0
while :; do # a trap ends `wait` before the sweep has ended
    wait "$sweep" && status=0 || status=$?
    kill -0 "$sweep" 2>/dev/null || break
done
trap - TERM INT
kill "${started[@]}" 2>/dev/null || true
if ((stopped && status == 143)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
