#!/usr/bin/env bash
# Runs a command in Shoal's image, which it builds first where needed. `docker/run.sh --help` tells the options.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: docker/run.sh [options] COMMAND...

  docker/run.sh --accept-eula python src/main.py --config=s2q --env-config=sc2 with env_args.map_name=6h_vs_8z

Builds the image where it is not up to date (the first time downloads StarCraft II, about 3.8 GB), then runs the command
in it. Results are in results/, as without Docker.

  --gpus WHICH       an image with CUDA, with these GPUs: all, or what `docker run --gpus` takes
  --accept-eula      you accept Blizzard's AI and Machine Learning License; needed once, to build an image with the game
  --no-sc2           an image without StarCraft II
  --build-arg ARG    NAME=VALUE for `docker build`, as often as you like: see docker/Dockerfile
  --no-build         take the image as it is
  --help             this text
HELP
}

fail() {
    printf 'docker/run.sh: %s\n' "$*" >&2
    exit 1
}

tag=cpu gpus="" accepted=0 with_sc2=1 build=1 build_args=()
while (($#)); do
    case $1 in
        --gpus)
            (($# > 1)) || fail "--gpus needs a value, such as all"
            gpus=$2 tag=gpu
            shift
            ;;
        --gpus=*) gpus=${1#*=} tag=gpu ;;
        --accept-eula) accepted=1 ;;
        --no-sc2) with_sc2=0 ;;
        --build-arg)
            (($# > 1)) || fail "--build-arg needs a value, such as SC2_VERSION=4.6.2"
            build_args+=(--build-arg "$2")
            shift
            ;;
        --no-build) build=0 ;;
        --help | -h)
            usage
            exit 0
            ;;
        --)
            shift
            break
            ;;
        -*) fail "there is no option $1: docker/run.sh --help lists them" ;;
        *) break ;;
    esac
    shift
done
(($#)) || fail "no command: docker/run.sh --help shows one"
command -v docker >/dev/null || fail "docker is not installed: install it, or run natively (docs/starcraft.md)"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
((with_sc2)) || tag+=-no-sc2
image=shoal:$tag

# The image's user is you, so that what it writes is yours. Root stays outside: it gets an ordinary user.
uid=$(id -u) gid=$(id -g)
mkdir -p "$root/results"
if ((uid == 0)); then
    uid=1000 gid=1000
    chown "$uid:$gid" "$root/results"
fi

if ((build)); then
    quiet=()
    if docker image inspect "$image" >/dev/null 2>&1; then
        # Built before, so the license was accepted then; another value would make Docker fetch the game again.
        accepted=$with_sc2 quiet=(--quiet)
    elif ((with_sc2 && !accepted)); then
        fail "the image gets StarCraft II: add --accept-eula if you accept Blizzard's AI and Machine Learning License" \
            "(http://blzdistsc2-a.akamaihd.net/AI_AND_MACHINE_LEARNING_LICENSE.html), or --no-sc2"
    fi
    docker build "${quiet[@]}" --file "$root/docker/Dockerfile" --tag "$image" \
        --build-arg "WITH_SC2=$with_sc2" --build-arg "ACCEPT_SC2_EULA=$accepted" \
        --build-arg "GPU=$([[ -n $gpus ]] && echo 1 || echo 0)" \
        --build-arg "USER_ID=$uid" --build-arg "GROUP_ID=$gid" "${build_args[@]}" "$root" >&2 ||
        fail "the image could not be built (see above)"
fi

# --init ends the game's processes with the run. Worker processes hand over episodes through shared memory, of which a
# container has 64 MB unless told otherwise.
options=(--rm --init --shm-size=4g --volume "$root/results:/home/shoal/shoal/results")
[[ -z $gpus ]] || options+=(--gpus "$gpus")
[[ ! -t 0 || ! -t 1 ]] || options+=(--interactive --tty)
exec docker run "${options[@]}" "$image" "$@"
