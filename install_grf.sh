#!/usr/bin/env bash
# Builds Google Research Football (about five minutes on two cores) and lets its engine play a few steps.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
    cat <<'TEXT'
Usage: ./install_grf.sh [--check] [--no-system-packages]

Builds the engine of Google Research Football from source and installs it for Shoal.

  --check                 tell whether it is there and plays; install nothing; exit status 1 if it does not
  --no-system-packages    do not call apt-get: the compiler and the libraries are there already

Environment variables:
  PYTHON                  the interpreter that gets the package (default .venv/bin/python beside this script, else python3)
TEXT
}

fail() {
    echo "install_grf.sh: $*" >&2
    exit 1
}

check=0 system=1
for argument in "$@"; do
    case $argument in
        --check) check=1 ;;
        --no-system-packages) system=0 ;;
        --help | -h)
            usage
            exit
            ;;
        *) fail "unknown option $argument: see --help." ;;
    esac
done

python=${PYTHON:-}
if [[ -z $python ]]; then
    if [[ -x .venv/bin/python ]]; then python=$PWD/.venv/bin/python; else python=python3; fi
fi
command -v "$python" >/dev/null || fail "no interpreter $python: run make setup first, or set PYTHON."

plays() {
    "$python" - <<'PY' >/dev/null 2>&1
import gfootball.env
env = gfootball.env.create_environment(
    env_name="academy_3_vs_1_with_keeper", representation="raw", number_of_left_players_agent_controls=3
)
env.reset()
for _ in range(5):
    env.step([0, 0, 0])
PY
}

if plays; then
    echo "Google Research Football is installed and plays."
    exit
fi
if ((check)); then
    echo "Google Research Football is missing, or does not play: run ./install_grf.sh."
    exit 1
fi

packages=(build-essential cmake libsdl2-dev libsdl2-image-dev libsdl2-ttf-dev libsdl2-gfx-dev libboost-all-dev libgl1-mesa-dev
    "$("$python" -c 'import sys; print(f"python{sys.version_info[0]}.{sys.version_info[1]}-dev")')")
if ((system)); then
    missing=()
    for package in "${packages[@]}"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    # Not every Python is Debian's: then its headers come with it.
    if [[ -f $("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h ]]; then
        mapfile -t missing < <(printf '%s\n' "${missing[@]}" | grep -v '^python.*-dev$' || true)
    fi
    if ((${#missing[@]})) && [[ -n ${missing[0]} ]]; then
        command -v apt-get >/dev/null ||
            fail "no apt-get here: install ${missing[*]} (or what they are called on this system) and run it again with --no-system-packages."
        root=()
        if ((EUID != 0)); then
            command -v sudo >/dev/null || fail "root is needed for: apt-get install ${missing[*]}. Have them installed, then run it again."
            root=(sudo)
        fi
        echo "installing ${missing[*]}"
        "${root[@]}" apt-get update -q
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" ||
            fail "apt-get could not install the packages above: see its message."
    fi
fi
for tool in cmake c++; do
    command -v "$tool" >/dev/null || fail "no $tool here: install ${packages[*]} and run it again."
done

echo "building the engine: about five minutes on two cores"
# Its build calls python and needs these packages at hand, so the environment must look activated.
PATH=$(dirname "$("$python" -c 'import sys; print(sys.executable)')"):$PATH
export PATH
"$python" -m pip install -q "setuptools>=77.0.3,<80.9" wheel psutil six "gym==0.25.2"
"$python" -m pip install -q --no-build-isolation "gfootball==2.10.2" ||
    fail "the engine could not be built: see the compiler's message above."
plays || fail "the engine was built but does not play: run $python -c 'import gfootball.env' and see."
echo "Google Research Football is installed and plays."
