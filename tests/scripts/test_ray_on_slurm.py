"""scripts/ray_on_slurm.sh, with Slurm's and Ray's commands played by small scripts that note what they were told."""

import os
import shutil
import signal
import subprocess

import pytest

from support.launch import MAIN, wait_until

SCRIPT = MAIN.parents[1] / "scripts" / "ray_on_slurm.sh"

SRUN = """#!/usr/bin/env bash
echo "srun $*" >> "$NOTES"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >> "$NOTES"
"""
PYTHON = """#!/usr/bin/env bash
if [[ $1 == -c ]]; then
    shift 2
    echo "ray $*" >> "$NOTES"
    [[ $* == *--head* ]] && exec python3 -c "
import socket, time
listener = socket.create_server(('127.0.0.1', $RAY_PORT))
time.sleep(600)"
    [[ $* == start* ]] && exec sleep 600
    exit 0
fi
echo "python $* usage=$RAY_USAGE_STATS_ENABLED auth=$RAY_AUTH_MODE" >> "$NOTES"
trap 'echo "sweep stopped" >> "$NOTES"; exit 143' TERM
echo ready >> "$NOTES"
for _ in $(seq "$SWEEP_TURNS"); do sleep 0.1; done
exit "$SWEEP_STATUS"
"""


def free_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def job(tmp_path):
    """Starts the script as Slurm would, on the first of two machines."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("our-python", PYTHON)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "sweep.py").touch()
    (tmp_path / "notes").touch()
    variables = {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "NOTES": str(tmp_path / "notes"),
        "PYTHON": "our-python",
        "RAY_PORT": str(free_port()),
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURMD_NODENAME": "127.0.0.1",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "2",
        "SWEEP_TURNS": "1",
        "SWEEP_STATUS": "0",
    }
    processes = []

    def start(*args, **more):
        process = subprocess.Popen(
            [str(SCRIPT), *args],
            env=variables | more,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process, lambda: (tmp_path / "notes").read_text()

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_script_is_sound():
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0
    if shutil.which("shellcheck"):
        checked = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


def test_ray_is_started_on_all_machines_and_the_sweep_is_given_its_address(job):
    process, notes = job("--configs=qmix", "with", "lr=0.1", SWEEP_STATUS="1")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    lines = notes().splitlines()
    assert lines[0] == "ray get-auth-token --generate"
    (head,) = [line for line in lines if line.startswith("ray start --head")]
    assert "--node-ip-address=127.0.0.1" in head
    assert "--num-cpus=16 --num-gpus=2 --disable-usage-stats --block" in head
    (address,) = [word for word in head.split() if word.startswith("--port=")]
    address = f"--address=127.0.0.1:{address.removeprefix('--port=')}"
    (others,) = [line for line in lines if line.startswith("srun --nodes=1 --ntasks=1 --overlap --exclude")]
    assert "--exclude=127.0.0.1" in others
    assert f"ray start {address} --num-cpus=16 --num-gpus=2 --disable-usage-stats --block" in lines
    assert f"python src/sweep.py {address} --configs=qmix with lr=0.1 usage=0 auth=token" in lines
    assert not any(line.startswith("scontrol") for line in lines)


def test_when_the_time_is_over_the_sweep_stops_and_the_job_is_queued_again(job):
    process, notes = job("--configs=qmix", SWEEP_TURNS="3000", SLURM_JOB_NUM_NODES="1")
    wait_until(lambda: "ready" in notes(), 120, "the sweep")
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    assert notes().splitlines()[-2:] == ["sweep stopped", "scontrol requeue 77"]
    assert "--exclude" not in notes()


@pytest.mark.parametrize(
    ("args", "more", "told"),
    [
        ([], {}, "say what to run"),
        (["--configs=qmix"], {"SLURM_JOB_ID": ""}, "sbatch"),
        (["--configs=qmix"], {"SLURM_SUBMIT_DIR": "/"}, "not the repository"),
        (["--configs=qmix"], {"PYTHON": "no-python"}, "no-python"),
        (["--configs=qmix"], {"SLURMD_NODENAME": "no.such.host.invalid"}, "no.such.host.invalid"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(job, args, more, told):
    process, _ = job(*args, **more)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith("ray_on_slurm.sh: ")
    assert told in errors
