#!/usr/bin/env bash
# Installs StarCraft II for Linux, the maps of SMAC, SMACv2, SMAC-Comm and (on request) SMAC-Hard, and their Python
# packages. `./install_sc2.sh --help` tells the options. Run it again after a failure: it goes on where it stopped.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: ./install_sc2.sh [options]

Installs StarCraft II, the SMAC, SMACv2 and SMAC-Comm maps, and the Python packages smac, smacv2 and pysc2.

  --version V          game version: 4.10 (default) or 4.6.2, with which the SMAC paper's results were made;
                       another V stands for the archive SC2.V.zip
  --hard               SMAC-Hard too: its maps and its package smac_hard
  --check              tell what is there and what is missing, with the command that mends it; download nothing;
                       exit status 1 if something is missing
  --no-game            leave the game out
  --no-python          leave the Python packages out
  --maps-only          only the maps
  --accept-eula, --yes do not ask: you accept Blizzard's AI and Machine Learning License
  --help               this text

Environment variables:
  SC2PATH              where the game is or goes (default ~/StarCraftII)
  PYTHON               the interpreter that gets the packages (default .venv/bin/python beside this script,
                       else python3)
  SC2_GAME_URL, SMAC_MAPS_URL, SMACV2_MAPS_URL
                       mirrors of the archives
  SMAC_COMM_MAPS_URL   mirror of the folder that holds SMAC-Comm's four maps
  SMAC_SOURCE, SMACV2_SOURCE
                       what pip installs instead: a requirement or a local folder
  SMAC_HARD_SOURCE     a mirror of SMAC-Hard's git repository, or a local copy of it
HELP
}

game_server=http://blzdistsc2-a.akamaihd.net/Linux
license_url=http://blzdistsc2-a.akamaihd.net/AI_AND_MACHINE_LEARNING_LICENSE.html
# Blizzard's archives open with this phrase only; whoever uses it agrees to the license.
password=iagreetotheeula
# Its archive is the only one whose checksum is published.
sha256_of_4_10=1052f249f30a242bf5e17cc3315324919f9689307ca6dbcdb30bb41ea3004884

smac_maps_url=${SMAC_MAPS_URL:-https://github.com/oxwhirl/smac/releases/download/v0.1-beta1/SMAC_Maps.zip}
smacv2_maps_url=${SMACV2_MAPS_URL:-https://github.com/oxwhirl/smacv2/releases/download/maps/SMAC_Maps.zip}
ndq_commit=575f2e243bac1a567c072dbea8e093aaa4959511
ndq_folder=https://raw.githubusercontent.com/TonghanWang/NDQ/$ndq_commit/src/smac_plus/sc2_maps
comm_maps_url=${SMAC_COMM_MAPS_URL:-$ndq_folder}

smac_commit=d6aab33f76abc3849c50463a8592a84f59a5ef84
smacv2_commit=577ab5a2cff2391f8df582da5731ea9cd6adf3c6
hard_commit=f034f8553c57bc819a45e9afc8bea6e15c88409a
smac_source=${SMAC_SOURCE:-smac @ git+https://github.com/oxwhirl/smac.git@$smac_commit}
smacv2_source=${SMACV2_SOURCE:-smacv2 @ git+https://github.com/oxwhirl/smacv2.git@$smacv2_commit}
hard_source=${SMAC_HARD_SOURCE:-https://github.com/devindeng94/smac-hard.git}

smac_maps=(3m 8m 25m 5m_vs_6m 8m_vs_9m 10m_vs_11m 27m_vs_30m MMM MMM2 2s3z 3s5z 3s5z_vs_3s6z 3s_vs_3z 3s_vs_4z
    3s_vs_5z 1c3s5z 2m_vs_1z corridor 6h_vs_8z 2s_vs_1sc so_many_baneling bane_vs_bane 2c_vs_64zg)
smacv2_maps=(32x32_flat) # all of 10gen_terran, 10gen_protoss and 10gen_zerg are played on it
declare -A comm_sha256=(
    [1o_10b_vs_1r]=2472398d23ea3e11d4a51a05ee3fa8762d7373959bd4bfd5cd6e9dbe44a39c94
    [1o_2r_vs_4r]=101a006fed17ad9ec03809e03d7b103e3122877d1fa0bb0930e379551fa06346
    [5z_vs_1ul]=29889e39885f3b2eb950ffed098a25a379b36c02e1262d9575dcf7c0edb4b302
    [bane_vs_hM]=7535245e01f4f4284170b8e442600d93a85693daecebccc1c97e9804e626f094
)
comm_maps=(1o_10b_vs_1r 1o_2r_vs_4r 5z_vs_1ul bane_vs_hM)

say() { printf '%s\n' "$*"; }

fail() {
    printf 'install_sc2.sh: %s\n' "$*" >&2
    exit 1
}

# --- What was asked for ---------------------------------------------------------------------------------------------

version=""
game=1 packages=1 hard=0 check=0 accepted=0
while (($#)); do
    case $1 in
        --version)
            (($# > 1)) || fail "--version needs a value, such as 4.10"
            version=$2
            shift
            ;;
        --version=*) version=${1#*=} ;;
        --hard) hard=1 ;;
        --check) check=1 ;;
        --no-game) game=0 ;;
        --no-python) packages=0 ;;
        --maps-only) game=0 packages=0 ;;
        --accept-eula | --yes) accepted=1 ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) fail "there is no option $1: ./install_sc2.sh --help lists them" ;;
    esac
    shift
done
# Asked for by name, only that version will do; else any that is there.
wanted=$version
version=${version:-4.10}
[[ $version =~ ^[0-9][0-9A-Za-z._]*$ ]] || fail "$version is no game version: 4.10 is one"

# `build` names the folder below Versions; unknown (empty) for versions not listed here.
case $version in
    4.10) archive=SC2.4.10.zip build=75689 download_size="about 3.8 GB" unpacked_size="about 7 GB" ;;
    4.6.2) archive=SC2.4.6.2.69232.zip build=69232 download_size="" unpacked_size="" ;;
    *) archive=SC2.$version.zip build="" download_size="" unpacked_size="" ;;
esac
game_url=${SC2_GAME_URL:-$game_server/$archive}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
default_path=${HOME:?HOME is not set: set it, or set SC2PATH}/StarCraftII
target=$(realpath -m -- "${SC2PATH:-$default_path}")
[[ $target == "$(realpath -m -- "$default_path")" ]] && elsewhere=0 || elsewhere=1
parent=$(dirname "$target")
work=$parent/.$(basename "$target").install # downloads and what is half unpacked: beside the target, so that
staging=$target/Maps/.staging               # putting it in place is a rename

if [[ -n ${PYTHON:-} ]]; then
    python=$PYTHON
elif [[ -x $here/.venv/bin/python ]]; then
    python=$here/.venv/bin/python
else
    python=python3
fi

# The command that mends a gap, with the settings that this call had.
mend() {
    local words=()
    ((!elsewhere)) || words+=("SC2PATH=$(printf %q "$target")")
    [[ -z ${PYTHON:-} || $* == *--maps-only* ]] || words+=("PYTHON=$(printf %q "$PYTHON")")
    words+=(./install_sc2.sh "$@")
    ((!hard)) || words+=(--hard)
    say "${words[*]}"
}

# --- What is there ---------------------------------------------------------------------------------------------------

version_of() {
    case $1 in
        75689) say 4.10 ;;
        70154) say 4.7.1 ;;
        69232) say 4.6.2 ;;
        *) say "build $1" ;;
    esac
}

# The builds in the folder $1, one a line; none where the game is not there or not whole.
builds_in() {
    local binary base
    for binary in "$1"/Versions/Base*/SC2_x64; do
        [[ -s $binary ]] || continue
        base=$(basename "$(dirname "$binary")")
        say "${base#Base}"
    done
}

# Whether one of the builds $1 is the version that was asked for.
fits() {
    [[ -n $1 ]] || return 1
    [[ -z $wanted || -z $build ]] || grep -qx -- "$build" <<<"$1"
}

named() {
    local name names=""
    for name in $1; do names+="${names:+, }$(version_of "$name")"; done
    say "$names"
}

# Which of the maps $2... the folder Maps/$1 lacks.
missing_maps() {
    local folder=$target/Maps/$1 name
    shift
    for name in "$@"; do
        [[ -s $folder/$name.SC2Map ]] || say "$name"
    done
}

# SMAC-Hard plays on maps of its own that have SMAC's names.
missing_hard() { missing_maps SMAC_HARD_maps "${smac_maps[@]}"; }

# What the interpreter lacks, one a line. Runs in /, so that a folder `smac` in the current one is not taken for it.
missing_packages() {
    (
        cd /
        "$python" - "$hard" <<'PY'
import importlib.metadata
import importlib.util
import sys
from pathlib import Path


def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def has(package, folder):
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations if spec else None) or []
    return any(Path(place, folder).is_dir() for place in places)


if version("pysc2") != "4.0.0":
    print("pysc2==4.0.0")
protobuf = version("protobuf")
if protobuf is None or tuple(int(part) for part in protobuf.split(".")[:2]) >= (3, 21):
    print("protobuf<3.21")
# The folder tells them from other projects of the same name.
if not has("smac", "env"):
    print("smac")
if not has("smacv2", "env"):
    print("smacv2")
if sys.argv[1] == "1" and not has("smac_hard", "env/scripts"):
    print("smac_hard")
PY
    )
}

find_python() {
    local found
    found=$(command -v -- "$python") || fail "there is no interpreter $python: make setup makes one, or set PYTHON"
    python=$(realpath -s -- "$found")
}

# One line for each thing. Sets `gaps` to how many are missing.
gaps=0
report() { # name, what is missing, what is there, mending command
    if [[ -z $2 ]]; then
        say "ok       $1: $3"
    else
        gaps=$((gaps + 1))
        say "missing  $1: $2"
        say "         $4"
    fi
}

report_maps() { # suite, folder below Maps, names
    local missing
    missing=$(missing_maps "${@:2}")
    if [[ $(wc -l <<<"$missing") == $(($# - 2)) && -n $missing ]]; then missing="all $(($# - 2))"; fi
    report "$1 maps" "${missing//$'\n'/ }" "$(($# - 2)) in $target/Maps/$2" "$(mend --maps-only)"
}

check_all() {
    local found missing get_game=(--version "$version" --no-python)
    gaps=0
    if ((game)); then
        found=$(builds_in "$target")
        missing=""
        if [[ -z $found ]]; then
            missing="not in $target"
        elif ! fits "$found"; then
            missing="$target holds $(named "$found"), not $version"
        fi
        report "StarCraft II" "$missing" "$(named "$found") in $target" \
            "$(if [[ -n $found ]]; then other_folder; else mend "${get_game[@]}"; fi)"
    fi
    report_maps SMAC SMAC_Maps "${smac_maps[@]}"
    report_maps SMACv2 SMAC_Maps "${smacv2_maps[@]}"
    report_maps SMAC-Comm SMAC_Maps "${comm_maps[@]}"
    if ((hard)); then report_maps SMAC-Hard SMAC_HARD_maps "${smac_maps[@]}"; fi
    if ((packages)); then
        find_python
        missing=$(missing_packages) || fail "$python cannot be asked what it has: set PYTHON to one that works"
        report "Python packages" "${missing//$'\n'/ }" "in $python" "$(mend --no-game)"
    fi
}

# Two versions of the game live in two folders.
other_folder() { say "SC2PATH=$(printf %q "$target-$version") ./install_sc2.sh --version $version"; }

# --- Downloading -----------------------------------------------------------------------------------------------------

need_tools() {
    local tool absent=()
    for tool in "$@"; do command -v "$tool" >/dev/null || absent+=("$tool"); done
    ((!${#absent[@]})) || fail "needs ${absent[*]}: apt-get install ${absent[*]}"
}

# Bytes that the address holds; empty where the server does not tell.
remote_size() {
    curl --silent --fail --location --head --max-time 30 "$1" 2>/dev/null | tr -d '\r' |
        awk 'tolower($1) == "content-length:" {size = $2} END {print size}' || true
}

size_of() { if [[ -f $1 ]]; then stat -c %s -- "$1"; else say 0; fi; }

in_words() { awk -v b="$1" 'BEGIN {if (b >= 1e9) printf "%.1f GB", b / 1e9; else printf "%.1f MB", b / 1e6}'; }

free_bytes() { df -Pk -- "$1" | awk 'NR == 2 {printf "%.0f", $4 * 1024}'; }

need_space() { # folder, bytes, what for
    local free
    free=$(free_bytes "$1")
    ((free >= $2)) || fail "$1 has $(in_words "$free") free, and $3 needs about $(in_words "$2"):" \
        "free some, or choose another disk with SC2PATH"
}

# Fetches $1 into the file $2.part, going on where an earlier try stopped. $3 is its size where known.
download() {
    local url=$1 part=$2.part size=${3:-} try before status code progress=(--silent --show-error)
    [[ ! -t 2 ]] || progress=(--progress-bar)
    # Longer than what the server has: left from another file.
    if [[ -n $size ]] && (($(size_of "$part") > size)); then rm -f "$part"; fi
    for try in 1 2 3 4 5; do
        before=$(size_of "$part")
        if [[ -n $size ]] && ((before == size)); then return; fi
        status=0
        # A transfer slower than 1 kB/s for a minute hangs.
        code=$(curl "${progress[@]}" --fail --location --connect-timeout 20 --speed-limit 1000 --speed-time 60 \
            --continue-at - --write-out '%{http_code}' --output "$part" "$url") || status=$?
        if ((status == 0)); then return; fi
        if ((status == 33)) || [[ $code == 416 ]]; then
            rm -f "$part" # the server cannot go on in the middle
        elif ((status == 22)) && [[ $code == 4* ]]; then
            fail "$url answers $code: set the mirror's address (./install_sc2.sh --help names the variables)"
        elif ((status == 23)); then
            fail "cannot write $part: see to the disk's space and rights, then run the same command again"
        elif (($(size_of "$part") <= before && try > 2)); then
            break # not one byte more: another try would not help
        fi
        ((try == 5)) || sleep 1
    done
    fail "the download of $url stopped (curl's status $status): run the same command again, it goes on from there"
}

# Fetches an address into a file and looks at it before it gets its name.
fetch() { # address, file, sha256 or "zip", size where known
    local url=$1 file=$2 expected=$3 sum
    [[ ! -f $file ]] || return 0
    download "$url" "$file" "${4:-}"
    if [[ $expected == zip ]]; then
        if ! unzip -tqq -P "$password" "$file.part" >/dev/null 2>&1; then
            rm -f "$file.part"
            fail "what $url sent is no whole archive and was removed: run again, or set another mirror"
        fi
    else
        sum=$(sha256sum <"$file.part")
        if [[ ${sum%% *} != "$expected" ]]; then
            rm -f "$file.part"
            fail "what $url sent has the wrong checksum and was removed: run again, or set another mirror"
        fi
    fi
    mv -f -- "$file.part" "$file"
}

# --- Installing ------------------------------------------------------------------------------------------------------

make_folder() {
    mkdir -p -- "$1" 2>/dev/null || fail "cannot make $1: set SC2PATH to a folder that you may write to"
    [[ -w $1 ]] || fail "cannot write in $1: set SC2PATH to a folder that you may write to"
}

clean() {
    rm -rf -- "$work/unpack" "$work/hard" "$staging" 2>/dev/null || true
    rmdir -- "$work" 2>/dev/null || true # stays while it holds a download to go on with
}

accept_license() {
    local answer=""
    say "The archive's password ($password) says that you accept Blizzard's AI and Machine Learning License:"
    say "  $license_url"
    if ((accepted)); then
        say "Accepted by --accept-eula."
    elif [[ -t 0 ]]; then
        read -r -p "Do you accept it? [y/N] " answer || true
        [[ $answer == [yY] || $answer == [yY][eE][sS] ]] || fail "not accepted, so the game was not downloaded"
    else
        fail "the game is not downloaded before you accept that license: add --accept-eula if you do"
    fi
}

# Unpacks the archive $1 into $work/unpack.
unpack() {
    local status=0
    rm -rf -- "$work/unpack"
    unzip -qo -P "$password" "$1" -d "$work/unpack" || status=$?
    ((status <= 1)) || fail "$1 could not be unpacked (see above): remove it and run again" # 1: only warnings
}

install_game() {
    local found size other bytes root
    found=$(builds_in "$target")
    if fits "$found"; then return; fi
    [[ -z $found ]] || fail "$target holds $(named "$found"), not $version: $(other_folder)"
    if [[ -e $target ]]; then
        [[ -d $target ]] || fail "$target is a file: set SC2PATH to a folder"
        # Maps of an earlier --maps-only are taken along. Anything else is not ours to move.
        other=$(find "$target" -mindepth 1 -maxdepth 1 ! -name Maps -printf '%f ')
        [[ -z $other ]] || fail "$target holds no whole game but ${other% }: move it away, or set another SC2PATH"
    fi

    size=$(remote_size "$game_url")
    [[ -z $size ]] || download_size=$(in_words "$size")
    say "StarCraft II $version from $game_url"
    say "  to download: ${download_size:-a few GB}; on the disk with the maps: ${unpacked_size:-some GB more}"
    # The archive and what it unpacks to (about twice its size) lie side by side for a while.
    bytes=$((${size:-3800000000} * 3 - $(size_of "$work/$archive.part") - $(size_of "$work/$archive")))
    need_space "$parent" "$bytes" "the game with its archive"
    accept_license
    make_folder "$work"

    if [[ $version == 4.10 ]]; then
        fetch "$game_url" "$work/$archive" "$sha256_of_4_10" "$size"
    else
        say "  no checksum is published for $version: only the archive's own are checked"
        fetch "$game_url" "$work/$archive" zip "$size"
    fi

    say "  unpacking"
    bytes=$(unzip -Zt "$work/$archive" | awk '{print $3}')
    need_space "$work" "$bytes" "unpacking the game"
    unpack "$work/$archive"
    for root in "$work/unpack" "$work/unpack"/*; do
        found=$(builds_in "$root")
        [[ -z $found ]] || break
    done
    [[ -n $found ]] ||
        fail "$archive holds no Versions/Base*/SC2_x64: remove $work, set another mirror and run again"
    [[ -z $build ]] || grep -qx -- "$build" <<<"$found" ||
        fail "$archive holds $(named "$found"), not $version: remove $work, set another mirror and run again"

    if [[ -d $target/Maps ]]; then
        mkdir -p "$root/Maps"
        cp -a -- "$target/Maps/." "$root/Maps/"
    fi
    if [[ -d $target ]]; then
        # Put back by the next run, should this one be killed between the two renames.
        mv -T -- "$target" "$work/replaced" ||
            fail "$target cannot be renamed (a mount point?): set SC2PATH to a folder inside it"
    fi
    mv -T -- "$root" "$target"
    rm -rf -- "$work/replaced" "$work/unpack"
    rm -f -- "$work/$archive"
    say "  StarCraft II $version is in $target"
}

# Moves files into a map folder under a name that is right at once. A map that is there already stays.
place() { # folder below Maps, files
    local folder=$target/Maps/$1 file name
    shift
    make_folder "$folder"
    make_folder "$staging"
    for file in "$@"; do
        name=$(basename "$file")
        [[ ! -s $folder/$name ]] || continue
        mv -f -- "$file" "$staging/.$name"
        mv -f -- "$staging/.$name" "$folder/$name"
    done
}

install_archived_maps() { # suite, address, names
    local suite=$1 url=$2 file files=() lacking
    shift 2
    [[ -n $(missing_maps SMAC_Maps "$@") ]] || return 0
    say "$suite maps from $url"
    make_folder "$work"
    fetch "$url" "$work/$suite.zip" zip
    unpack "$work/$suite.zip"
    # "._" files are what a Mac leaves in archives.
    while IFS= read -r -d '' file; do files+=("$file"); done \
        < <(find "$work/unpack" -type f -name '*.SC2Map' ! -name '._*' -print0)
    place SMAC_Maps "${files[@]}"
    rm -rf -- "$work/unpack" "$work/$suite.zip"
    lacking=$(missing_maps SMAC_Maps "$@")
    [[ -z $lacking ]] || fail "$url lacks ${lacking//$'\n'/ }: set the address of another mirror"
    say "  ${#files[@]} maps are in $target/Maps/SMAC_Maps"
}

install_comm_maps() {
    local name
    [[ -n $(missing_maps SMAC_Maps "${comm_maps[@]}") ]] || return 0
    say "SMAC-Comm maps from $comm_maps_url"
    make_folder "$work"
    for name in $(missing_maps SMAC_Maps "${comm_maps[@]}"); do
        fetch "$comm_maps_url/$name.SC2Map" "$work/$name.SC2Map" "${comm_sha256[$name]}"
        place SMAC_Maps "$work/$name.SC2Map"
    done
    say "  ${#comm_maps[@]} maps are in $target/Maps/SMAC_Maps"
}

install_hard() {
    local lacking="" copy=$work/hard
    if ((packages)); then lacking=$(missing_packages | grep -x smac_hard || true); fi
    [[ -n $(missing_hard)$lacking ]] || return 0
    say "SMAC-Hard from $hard_source"
    make_folder "$work"
    mkdir "$copy"
    if [[ -d $hard_source ]]; then
        cp -r -- "$hard_source/smac_hard" "$hard_source/SMAC_HARD_maps" "$copy/" ||
            fail "$hard_source is no copy of SMAC-Hard's repository: set SMAC_HARD_SOURCE to one"
    else
        need_tools git
        git init -q "$copy"
        { git -C "$copy" fetch -q --depth 1 "$hard_source" "$hard_commit" && git -C "$copy" checkout -q FETCH_HEAD; } ||
            fail "$hard_source could not be read: run again, or set SMAC_HARD_SOURCE to a mirror or a local copy"
    fi
    place SMAC_HARD_maps "$copy"/SMAC_HARD_maps/*.SC2Map
    [[ -z $(missing_hard) ]] || fail "$hard_source lacks maps: set SMAC_HARD_SOURCE to another copy"
    say "  its maps are in $target/Maps/SMAC_HARD_maps"
    [[ -n $lacking ]] || return 0
    # Its setup.py forgets the folder of opponents' scripts, which it cannot run without: ours takes every folder.
    rm -f -- "$copy/setup.py"
    cat >"$copy/pyproject.toml" <<'TOML'
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "smac-hard"
version = "1.0.0"

[tool.setuptools.packages.find]
include = ["smac_hard*"]
TOML
    pip_install "${builders[@]}"
    pip_install --no-deps --force-reinstall "$copy"
    say "  smac_hard is in $python"
}

# Some of pysc2's requirements have no wheels. They are built in the environment itself, with these: an isolated build
# would take the newest setuptools, which no longer builds them.
builders=('setuptools>=77.0.3,<80.9' wheel)

pip_install() {
    (cd / && "$python" -m pip install -q --no-build-isolation "$@") ||
        fail "pip could not install ${*: -1} into $python (see above): use a virtual environment (make setup)," \
            "or set PYTHON, SMAC_SOURCE and SMACV2_SOURCE"
}

install_packages() {
    local lacking constraints=()
    lacking=$(missing_packages) || fail "$python cannot be asked what it has: set PYTHON to one that works"
    lacking=$(grep -vx smac_hard <<<"$lacking" || true)
    [[ -n $lacking ]] || return 0
    say "Python packages into $python: ${lacking//$'\n'/ }"
    [[ ! -f $here/requirements.txt ]] || constraints=(--constraint "$here/requirements.txt")
    pip_install "${builders[@]}"
    if grep -Eqx 'pysc2.*|protobuf.*' <<<"$lacking"; then
        pip_install "${constraints[@]}" 'protobuf>=3.20,<3.21' pysc2==4.0.0
    fi
    # Without their own requirements: they are pysc2's, and would move what Shoal needs.
    if grep -qx smac <<<"$lacking"; then install_source "$smac_source"; fi
    if grep -qx smacv2 <<<"$lacking"; then install_source "$smacv2_source"; fi
    lacking=$(missing_packages | grep -vx smac_hard || true)
    [[ -z $lacking ]] || fail "pip ended well but ${lacking//$'\n'/ } is not there: see which pip $python has"
    (cd / && "$python" -c 'import smac.env, smacv2.env' >/dev/null) ||
        fail "smac or smacv2 cannot be imported (see above): make a new environment (make clean setup) and run again"
}

install_source() {
    local source=$1
    [[ $source != *git+* ]] || need_tools git
    [[ ! -d $source ]] || source=$(realpath -- "$source") # pip runs in /
    pip_install --no-deps --force-reinstall "$source"
}

# --- Main ------------------------------------------------------------------------------------------------------------

if ((check)); then
    check_all
    ((!gaps)) || exit 1
    exit 0
fi

check_all >/dev/null # finds the interpreter before anything is downloaded
if ((!gaps)); then
    check_all
    say "Everything is there already: nothing to do."
    exit 0
fi

need_tools curl unzip
make_folder "$parent"
# Two of these at once would clean away each other's folders.
exec 9<"$parent"
if command -v flock >/dev/null; then
    flock -n 9 || fail "another install_sc2.sh is at work in $parent: wait for it"
fi
if [[ -d $work/replaced && ! -e $target ]]; then mv -T -- "$work/replaced" "$target"; fi
clean # what a killed run left half unpacked
trap clean EXIT

if ((game)); then install_game; fi
install_archived_maps SMAC "$smac_maps_url" "${smac_maps[@]}"
install_archived_maps SMACv2 "$smacv2_maps_url" "${smacv2_maps[@]}"
install_comm_maps
if ((packages)); then install_packages; fi
if ((hard)); then install_hard; fi

say "Done."
check_all
((!elsewhere)) || say "Before each run: export SC2PATH=$(printf %q "$target")"
