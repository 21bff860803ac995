// LibraryErrors: what a library reports of its errors, on whatever thread of its own they happen,
// and what they come to for the call that failed. FirstLogged: what it has no recorder for.

#pragma once

#include <atomic>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"

namespace penstock::tensorrt {

// Whether a library's words say that memory was short, on the device or on the host.
bool TellsOfMemory(std::string_view words);

// A plan that was refused: where that is for the version of TensorRT that built it, with `library`,
// which does not run it: "11.1.0.106, the one of pip's packages".
Status WithLibrary(const Status& refused, std::string_view library);

// The first error that a library has logged on this thread since Forget: the cause. What it logs
// after it, "Cuda Runtime (In catchCudaError at ...)", is what the cause led to.
// Threading: each thread has its own.
class FirstLogged {
 public:
  static void Add(std::string_view words);
  static std::string Take();  // "" = there was none
  static void Forget();
};

// Threading: thread-safe.
class LibraryErrors {
 public:
  // What is kept: the first are the cause, and a library in trouble reports without end.
  static constexpr size_t kMost = 16;
  static constexpr size_t kMaxWords = 1024;  // of one error

  struct Reported {
    int code = 0;               // the library's
    bool is_of_memory = false;  // by its code; its words are looked at, too
    std::string words;
  };
  void Add(Reported error);
  // What was reported before belongs to no call to come.
  void Clear();
  size_t size() const { return size_.load(std::memory_order_relaxed); }
  std::optional<Reported> At(size_t index) const;  // nullopt: there are not so many
  bool has_overflowed() const;                     // some were not kept

  // What a call that failed answers: `what` with the words of the first error since the last call of
  // this or Clear, RESOURCE_EXHAUSTED with those about memory where there are any, else `code`. Words
  // that came another way stand in where nothing was reported: "" = none did.
  Status Take(StatusCode code, std::string_view what, std::string_view instead = "");

 private:
  std::atomic<size_t> size_{0};  // as errors_ has, to be asked without the lock

  mutable Mutex mu_;
  // Guarded by mu_.
  std::vector<Reported> errors_ GUARDED_BY(mu_);
  bool has_overflowed_ GUARDED_BY(mu_) = false;
};

}  // namespace penstock::tensorrt
