#!/usr/bin/env bash
# Puts LibTorch 2.11.0 where a plain `cargo build` finds it: .libtorch in the repository root.
#
#   scripts/fetch_libtorch.sh [--cuda]
#
# The libraries come from PyPI's torch wheel (whatever index pip is configured for), each wheel pinned and
# checked by sha256 (libtorch-cpu.txt, libtorch-cuda.txt), and go to a cache that all clones of a user share:
# ${XDG_CACHE_HOME:-~/.cache}/lossfloor/libtorch-2.11.0-{cpu,cuda}. With an NVIDIA driver, or --cuda (to
# prepare a build for another machine), CUDA's libraries come too; a CPU-only .libtorch is then replaced.
#
# LIBTORCH (a LibTorch folder) or LIBTORCH_USE_PYTORCH (the torch of your python3) is used instead when set.
# Quiet when there is nothing to do; safe to run twice at once; an interrupted download goes on where it was.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
# shellcheck source=common.sh disable=SC1091
source "$here/common.sh"

version=2.11.0
link=$root/.libtorch

main() {
  local kind=cpu
  case "$*" in
    '') if has_driver; then kind=cuda; fi ;;
    --cuda) kind=cuda ;;
    *) die "usage: scripts/fetch_libtorch.sh [--cuda]" ;;
  esac

  if [[ -v LIBTORCH_USE_PYTORCH ]]; then
    check_pytorch
  elif [[ -v LIBTORCH && ${LIBTORCH%/} != "$link" ]]; then
    check_own "$LIBTORCH"
  elif ! link_serves "$kind"; then
    local cache
    cache=$(cache_folder)
    # CUDA's set holds the CPU's, so one that is there already serves both.
    if complete "$cache/libtorch-$version-cuda" cuda; then
      kind=cuda
    elif ! complete "$cache/libtorch-$version-$kind" "$kind"; then
      fetch "$cache" "$kind"
    fi
    set_link "$cache/libtorch-$version-$kind/torch"
    say "LibTorch $version ($kind) is ready in $cache/libtorch-$version-$kind"
  fi
}

has_driver() { [[ -e /proc/driver/nvidia/version ]] || command -v nvidia-smi >/dev/null; }

# --- A LibTorch of the user's own -------------------------------------------------------------------------

check_own() {
  local found
  [[ $1 == /* ]] || die "LIBTORCH='$1' is not an absolute path: give one, or unset LIBTORCH to have $version fetched"
  [[ -d $1 ]] || die "LIBTORCH=$1 does not exist: correct it, or unset LIBTORCH to have $version fetched"
  has_libraries "$1" || die "LIBTORCH=$1 holds no LibTorch (lib/libtorch_cpu and include/torch): correct it, or unset LIBTORCH to have $version fetched"
  found=$(version_of "$1")
  accept "$found" || die "LIBTORCH=$1 is LibTorch ${found:-of unknown version}, $version is needed: point it at $version, or unset LIBTORCH to have it fetched"
}

check_pytorch() {
  local python=python3 found
  [[ -v VIRTUAL_ENV ]] && python=python # as torch-sys chooses
  found=$("$python" -c 'import torch; print(torch.__version__.split("+")[0])' 2>/dev/null) ||
    die "LIBTORCH_USE_PYTORCH is set, but $python cannot import torch: install torch==$version there, or unset it to have LibTorch fetched"
  accept "$found" || die "LIBTORCH_USE_PYTORCH is set, and $python has torch $found, $version is needed: install torch==$version there, or unset it to have LibTorch fetched"
}

# torch-sys binds one exact release; its own way round that check is respected.
accept() { [[ $1 == "$version" || -v LIBTORCH_BYPASS_VERSION_CHECK ]]; }

has_libraries() { compgen -G "$1/lib/libtorch_cpu.*" >/dev/null && [[ -d $1/include/torch ]]; }

# The release of the LibTorch in folder $1 without its build suffix, or nothing.
version_of() {
  local text='' header
  if [[ -f $1/build-version ]]; then
    text=$(<"$1/build-version")
  elif [[ -f $1/version.py ]]; then
    text=$(sed -n "s/^__version__ = ['\"]\([^'\"]*\).*/\1/p" "$1/version.py")
  else
    for header in "$1/include/torch/headeronly/version.h" "$1/include/torch/csrc/api/include/torch/version.h"; do
      [[ -n $text || ! -f $header ]] ||
        text=$(awk '$2 ~ /^TORCH_VERSION_(MAJOR|MINOR|PATCH)$/ { v = v "." $3 } END { print substr(v, 2) }' "$header")
    done
  fi
  printf '%s' "${text%%+*}"
}

# --- .libtorch ------------------------------------------------------------------------------------------

# Whether .libtorch is there and right for kind $1. One that this script did not make is the user's choice.
link_serves() {
  local made found
  [[ -e $link || -L $link ]] || return 1
  found=$(version_of "$link")
  if has_libraries "$link" && accept "$found"; then
    made=$(dirname "$(realpath "$link")")
    [[ ! -d $made/.wheels ]] || complete "$made" "$1"
  elif [[ -L $link ]]; then
    return 1
  else
    die "$link is LibTorch ${found:-of unknown version}, $version is needed: move it away and run this again"
  fi
}

set_link() {
  { ln -s "$1" "$link.$$" && mv -T "$link.$$" "$link"; } 2>/dev/null ||
    die "cannot make the link $link: the repository must be writable"
}

# --- Fetching -------------------------------------------------------------------------------------------

cache_folder() {
  local base=${XDG_CACHE_HOME:-}
  if [[ $base != /* ]]; then
    [[ -n ${HOME:-} ]] || die "neither XDG_CACHE_HOME nor HOME is set: set one, for the folder LibTorch goes to"
    base=$HOME/.cache
  fi
  printf '%s' "$base/lossfloor"
}

# The pinned wheels of kind $1, one requirement a line.
wheels() {
  local -a files=("$here/libtorch-cpu.txt")
  [[ $1 == cuda ]] && files+=("$here/libtorch-cuda.txt")
  grep -hv '^#' "${files[@]}"
}

# Whether folder $1 has every wheel of kind $2 unpacked.
complete() {
  local wheel
  [[ -f $1/torch/build-version ]] || return 1
  while read -r wheel; do
    [[ -e $1/.wheels/${wheel##*:} ]] || return 1
  done < <(wheels "$2")
}

fetch() {
  local cache=$1 kind=$2 download free_gb need_gb=3 python
  local final=$cache/libtorch-$version-$kind
  local stage=$final.partial
  download='0.5 GB'
  [[ $kind == cuda ]] && download='2.5 GB' need_gb=6

  case "$(uname -s) $(uname -m)" in
    'Linux x86_64') ;;
    *) die "no LibTorch to fetch for $(uname -s) $(uname -m) (Linux x86_64 only): install LibTorch $version and set LIBTORCH to its folder" ;;
  esac
  command -v flock >/dev/null || die "flock is missing: install util-linux"
  python=$(find_python)
  { mkdir -p "$cache" && exec 9>"$cache/libtorch-$version.lock"; } 2>/dev/null ||
    die "cannot write to $cache: make it writable, or set XDG_CACHE_HOME to a folder that is"
  if ! flock -n 9; then
    say "waiting for another fetch of LibTorch"
    flock 9
  fi
  ! complete "$final" "$kind" || return 0

  free_gb=$(($(df -Pk "$cache" | awk 'NR == 2 { print $4 }') / 1000000))
  ((free_gb >= need_gb)) || die "$free_gb GB free in $cache, LibTorch needs $need_gb GB: make room, or set XDG_CACHE_HOME to another disk"
  say "fetching LibTorch $version for $kind ($download, from PyPI) into $final"
  mkdir -p "$stage" 2>/dev/null || die "cannot write to $cache: make it writable, or set XDG_CACHE_HOME to a folder that is"
  rm -rf "$stage/download"
  # What the CPU's cache has need not be fetched again. Copied aside first: a marker in .wheels must not come
  # before its wheel.
  if [[ $kind == cuda && ! -e $stage/root ]] && complete "$cache/libtorch-$version-cpu" cpu; then
    rm -rf "$stage/copy"
    cp -a --reflink=auto "$cache/libtorch-$version-cpu" "$stage/copy"
    mv -T "$stage/copy" "$stage/root"
  fi

  local wheel
  mkdir -p "$stage/root/.wheels" "$stage/download"
  while read -r wheel; do
    [[ -e $stage/root/.wheels/${wheel##*:} ]] || add_wheel "$python" "$stage" "$wheel"
  done < <(wheels "$kind")

  # torch-sys checks the version it finds here.
  printf '%s\n' "$version" >"$stage/root/torch/build-version"
  rm -rf "$final"
  mv -T "$stage/root" "$final"
  rm -rf "$stage"
}

# Downloads one pinned wheel into stage folder $2, verified by pip, and unpacks it there.
add_wheel() {
  local python=$1 stage=$2 wheel=$3 platform
  local -a platforms=()
  local name=${wheel%% *}
  for platform in 2_28 2_27 2_25 2_18 2_17 2014; do
    [[ $platform == 2014 ]] || platform=_$platform
    platforms+=(--platform "manylinux${platform}_x86_64")
  done
  [[ ! -t 2 ]] || printf '\r\033[K  %s' "$name" >&2
  printf '%s\n' "$wheel" >"$stage/download/wheel.txt"
  # pip downloads to TMPDIR before it moves: keep that off /tmp, which may be small.
  if ! TMPDIR=$stage/download "$python" -m pip download --quiet --disable-pip-version-check --no-cache-dir \
    --no-deps --require-hashes --only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 \
    "${platforms[@]}" --dest "$stage/download" --requirement "$stage/download/wheel.txt" \
    >"$stage/pip.log" 2>&1 9>&-; then
    [[ ! -t 2 ]] || printf '\r\033[K' >&2
    die "$(why_pip_failed "$name" "$stage/pip.log")"
  fi
  "$python" -m zipfile -e "$stage"/download/*.whl "$stage/root" 2>"$stage/pip.log" ||
    die "cannot unpack $name: $(tail -n 1 "$stage/pip.log")"
  rm "$stage"/download/*.whl
  : >"$stage/root/.wheels/${wheel##*:}"
  [[ ! -t 2 ]] || printf '\r\033[K' >&2
}

why_pip_failed() {
  local name=$1 log=$2
  if grep -q 'DO NOT MATCH THE HASHES' "$log"; then
    echo "$name does not match its pinned sha256, so it was not used: run this again, or look at what pip's index or proxy serves"
  elif grep -qiE 'no space left' "$log"; then
    echo "the disk filled up while fetching $name: make room, or set XDG_CACHE_HOME to another disk"
  elif grep -qiE 'resolution|connection|timed out|max retries|unreachable|proxy|SSL' "$log"; then
    echo "cannot reach PyPI for $name: check the network (pip's own settings apply) and run this again, or set LIBTORCH to a LibTorch $version"
  elif grep -q 'from versions: none' "$log"; then
    echo "pip finds no $name: check the network and pip's own settings (an index that mirrors PyPI, PIP_NO_INDEX), or set LIBTORCH to a LibTorch $version"
  else
    echo "pip could not download $name: $(grep -E '^ERROR' "$log" | tail -n 1 || tail -n 1 "$log")"
  fi
}

# The first python3 on PATH that has a pip new enough (21: several --platform).
find_python() {
  local python pip seen=''
  while read -r python; do
    seen=$python
    pip=$("$python" -m pip --version 2>/dev/null | sed -n 's/^pip \([0-9]*\).*/\1/p') || continue
    if ((${pip:-0} >= 21)); then
      printf '%s' "$python"
      return
    fi
  done < <(type -aP python3)
  [[ -n $seen ]] || die "python3 is missing: install Python 3 with pip, or set LIBTORCH to a LibTorch $version"
  die "python3 has no pip 21 or newer: install it (python3-pip, or python3 -m ensurepip), or set LIBTORCH to a LibTorch $version"
}

main "$@"
