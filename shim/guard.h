// What every function of the shim does with exceptions: none crosses to Rust.
#pragma once
#include "shim.h"

#include <exception>
#include <string>

// Runs `body`; 0, or -1 with the exception's message in `error`.
template <typename F>
int guarded(lf_error error, F&& body) {
  try {
    body();
    return 0;
  } catch (const std::exception& e) {
    static_cast<std::string*>(error)->assign(e.what());
    return -1;
  }
}
