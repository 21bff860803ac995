// Told: in LoadGen's place, remembers who was told of, and waits for them.

#pragma once

#include <map>
#include <string>

#include "base/mutex.h"
#include "native/recorder.h"

namespace penstock::loadgen {

// Threading: thread-safe.
class Told {
 public:
  Recorder::Complete Listener() {
    return [this](std::span<const Response> responses) {
      const MutexLock lock(mu_);
      for (const Response& each : responses) data_.emplace(each.id, each.data);
      changed_.NotifyAll();
    };
  }
  // By id; a second response for one id would be missing.
  std::multimap<uint64_t, std::string> Await(size_t count) {
    const MutexLock lock(mu_);
    while (data_.size() < count) changed_.Wait(mu_);
    return data_;
  }
  size_t count() const {
    const MutexLock lock(mu_);
    return data_.size();
  }

 private:
  mutable Mutex mu_;
  CondVar changed_;
  std::multimap<uint64_t, std::string> data_ GUARDED_BY(mu_);
};

}  // namespace penstock::loadgen
