#!/usr/bin/env bash
# Reproduces a study from a fresh clone: fetches LibTorch, builds, runs; the last line is the report's path.
#
#   scripts/reproduce.sh [STUDY] [ARGUMENT...]
#
# STUDY is a name in experiments/ (quick unless given) or the path of a yaml file. Arguments, from the first
# that begins with -, go on to `lossfloor reproduce`, which runs in the repository root.
set -euo pipefail
from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=common.sh disable=SC1091
source scripts/common.sh

study=quick
if (($# > 0)) && [[ $1 != -* ]]; then
  study=$1
  shift
fi
file=experiments/$study.yaml
if [[ $study == *.yaml || $study == *.yml ]]; then
  [[ $study == /* ]] && file=$study || file=$from/$study
  file=$(realpath --canonicalize-missing --relative-base="$PWD" "$file")
  [[ -f $file ]] || die "no study file $study"
elif [[ ! -f $file ]]; then
  names=$(find experiments -maxdepth 1 -name '*.yaml' -printf '%f\n' 2>/dev/null | sed 's/\.yaml$//' | sort | paste -sd ' ')
  die "no study '$study' in experiments/; there is: ${names:-none}"
fi

need_build_tools
bash scripts/fetch_libtorch.sh
cargo build --release --locked
exec "${CARGO_TARGET_DIR:-target}/release/lossfloor" reproduce "$file" "$@"
