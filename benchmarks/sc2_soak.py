"""A run with parallel StarCraft II games that die at random: does it end well, whole and without leaks?

    python benchmarks/sc2_soak.py --minutes 20 --games 8 --steps 300 --every 60

Needs `smac` and plays against the stand-in of `tests/sc2_stand_in`. Each game crashes on average once in so many steps,
in whatever it is doing then, and every so many seconds one of the workers, or one of the games, is killed from outside.
At the end it prints, as JSON, what happened, and fails if the run failed or left a process behind.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--games", type=int, default=8)
    parser.add_argument("--steps", type=float, default=300, help="game steps between two crashes of a game, on average")
    parser.add_argument("--every", type=float, default=60, help="seconds between two kills, on average")
    parser.add_argument("--map", default="3m")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return soak(args, Path(folder))


def soak(args: argparse.Namespace, folder: Path) -> int:
    install = [sys.executable, str(ROOT / "tests" / "sc2_stand_in" / "install.py"), str(folder / "StarCraftII")]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    variables |= {"SC2PATH": str(folder / "StarCraftII"), "SC2_STAND_IN_CRASH_P": str(1 / args.steps)}
    command = [sys.executable, str(ROOT / "src" / "main.py"), "--config=qmix", "--env-config=sc2", "with"]
    command += [f"env_args.map_name={args.map}", f"batch_size_run={args.games}", "batch_size=16", "buffer_size=200"]
    command += ["t_max=100000000", "test_interval=4000", "test_nepisode=8", "runner_log_interval=500", "seed=1"]
    with open(folder / "out.txt", "w") as out:
        run = subprocess.Popen(command, cwd=folder, env=variables, stdout=out, stderr=out, start_new_session=True)
    kills, memory = 0, []
    started = time.monotonic()
    try:
        while time.monotonic() - started < args.minutes * 60 and run.poll() is None:
            time.sleep(random.expovariate(1 / args.every))
            victims = games_in(folder) if random.random() < 0.5 else psutil.Process(run.pid).children()
            if victims:
                random.choice(victims).kill()
                kills += 1
            memory.append(round(trainer_and_workers(run.pid) / 1e6))
        ended_early = run.poll() is not None
        if not ended_early:
            run.send_signal(signal.SIGTERM)
        status = run.wait(120)
    finally:
        run.kill()
    time.sleep(3)
    record = folder / "results" / "sacred" / "1"
    metrics = json.loads((record / "metrics.json").read_text())
    restarts = metrics["env_restarts"]["values"][-1]
    lengths = metrics["ep_length_mean"]["values"]
    tenth = max(1, len(memory) // 10)
    result = {
        "minutes": round((time.monotonic() - started) / 60, 1),
        "environment_steps": metrics["env_restarts"]["steps"][-1],
        "episodes": metrics["episode"]["values"][-1],
        "killed_from_outside": kills,
        "env_restarts": restarts,
        "status": json.loads((record / "run.json").read_text())["status"],
        "longest_mean_episode": max(lengths),
        "shortest_mean_episode": min(lengths),
        "games_left": len(games_in(folder)),
        "memory_mb_second_tenth": round(sum(memory[tenth : 2 * tenth]) / tenth),
        "memory_mb_last_tenth": round(sum(memory[-tenth:]) / tenth),
    }
    print(json.dumps(result, indent=2))
    well = not ended_early and status != 0 and result["status"] == "INTERRUPTED"  # SIGTERM is how it was to end
    if not well or result["games_left"] or not restarts:
        print((folder / "out.txt").read_text()[-3000:])
        return 1
    return 0


def games_in(folder: Path) -> list[psutil.Process]:
    """The games that were launched out of a folder."""
    return [p for p in psutil.process_iter(["cmdline"]) if any(str(folder) in part for part in p.info["cmdline"] or [])]


def trainer_and_workers(pid: int) -> float:
    """Bytes of main memory of the run's Python processes, without the games."""
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children()]
        return sum(process.memory_info().rss for process in processes)
    except psutil.Error:
        return 0.0


if __name__ == "__main__":
    sys.exit(main())
