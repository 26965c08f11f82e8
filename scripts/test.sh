#!/usr/bin/env bash
# Format, lint and tests, as continuous integration runs them.
#
#   scripts/test.sh [--fast | --slow]
#
# Runs both feature sets: the default one, for which LibTorch is fetched if missing, and
# --no-default-features (no LibTorch). --fast leaves the second out; --slow adds the tests that need Slurm, for
# which it starts one (scripts/slurm-testbed.sh), some ten minutes. Stops at the first step that fails; each
# step's wall time comes last, on stderr.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=common.sh disable=SC1091
source scripts/common.sh

times=()

main() {
  local fast=false slow=false
  case "$*" in
    '') ;;
    --fast) fast=true ;;
    --slow) slow=true ;;
    *) die "usage: scripts/test.sh [--fast | --slow]" ;;
  esac
  need_build_tools
  trap print_times EXIT

  step "LibTorch" bash scripts/fetch_libtorch.sh
  if has_component fmt rustfmt; then
    step "fmt" cargo fmt --check
  fi
  if has_component clippy clippy; then
    step "clippy" cargo clippy --quiet --locked --all-targets -- -D warnings
    $fast || step "clippy, no torch" cargo clippy --quiet --locked --all-targets --no-default-features -- -D warnings
  fi
  step "test" cargo test --locked
  $fast || step "test, no torch" cargo test --locked --no-default-features
  ! $slow || step "test, Slurm" test_on_slurm
}

test_on_slurm() {
  local conf status=0
  conf=$(scripts/slurm-testbed.sh start --fresh)
  SLURM_CONF=$conf cargo test --locked --test it slurm_ -- --ignored --test-threads 1 || status=$?
  scripts/slurm-testbed.sh stop
  return $status
}

# Runs a command under a name and notes its wall time; a failing one ends the script.
step() {
  local name=$1 start=$SECONDS status=0
  shift
  "$@" || status=$?
  times+=("$(printf '%-18s%5d s' "$name" $((SECONDS - start)))")
  ((status == 0)) || die "failed: $*"
}

# Whether cargo's subcommand $1 works; it comes with rustup's component $2. CI must have it.
has_component() {
  cargo "$1" --version >/dev/null 2>&1 && return
  [[ ${CI:-} != true ]] || die "cargo $1 is missing: rustup component add $2"
  say "SKIPPED: cargo $1 is missing (rustup component add $2)"
  times+=("$(printf '%-18sskipped' "$1")")
  return 1
}

print_times() {
  ((${#times[@]} == 0)) || printf '%s\n' "${times[@]}" >&2
}

main "$@"
