# shellcheck shell=bash
# What the scripts here share. Source it; it runs nothing.

# One line on stderr under the script's name.
say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

# One line on stderr, then out.
die() {
  say "$*"
  exit 1
}

# Rust and a C++ compiler, for anything that builds.
need_build_tools() {
  command -v cargo >/dev/null || die "cargo is missing: install Rust 1.95 or newer (rustup)"
  local -a cxx
  read -ra cxx <<<"${CXX:-c++}"
  command -v "${cxx[0]}" >/dev/null || die "no C++ compiler (${cxx[0]}): install g++ 11 or newer, or set CXX"
  "${cxx[@]}" -std=c++20 -x c++ -fsyntax-only - <<<'#include <concepts>' 2>/dev/null ||
    die "the C++ compiler ${cxx[*]} does not compile C++20: install g++ 11 or newer, or set CXX"
}
