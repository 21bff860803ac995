// LeaveToTheProcess: keeps what must not be destroyed, such as what a lost device may still write to.

#pragma once

#include <utility>
#include <vector>

#include "base/mutex.h"

namespace penstock {

// Keeps it, reachable, until the process ends. Threading: thread-safe.
template <typename T>
void LeaveToTheProcess(T kept) {
  static auto& mu = *new Mutex;
  static auto& all = *new std::vector<T>;
  MutexLock lock(mu);
  all.push_back(std::move(kept));
}

}  // namespace penstock
