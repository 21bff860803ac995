#include "backends/tensorrt/library_errors.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/strcat.h"

namespace penstock::tensorrt {

// TensorRT's and CUDA's: "Cuda Runtime (out of memory)", "Error Code 2: OutOfMemory (Requested size
// was 1024 bytes.)", "Requested amount of GPU memory (1024 bytes) could not be allocated."
bool TellsOfMemory(std::string_view words) {
  constexpr std::array<std::string_view, 5> kSigns = {
      "out of memory", "OutOfMemory", "could not be allocated", "cudaErrorMemoryAllocation",
      "std::bad_alloc"};
  return std::any_of(kSigns.begin(), kSigns.end(), [&](std::string_view sign) {
    return words.find(sign) != std::string_view::npos;
  });
}

void LibraryErrors::Add(Reported error) {
  if (error.words.size() > kMaxWords) error.words.resize(kMaxWords);
  error.is_of_memory = error.is_of_memory || TellsOfMemory(error.words);
  MutexLock lock(mu_);
  if (errors_.size() == kMost) {
    has_overflowed_ = true;
    return;
  }
  errors_.push_back(std::move(error));
  size_.store(errors_.size(), std::memory_order_relaxed);
}

void LibraryErrors::Clear() {
  MutexLock lock(mu_);
  errors_.clear();
  has_overflowed_ = false;
  size_.store(0, std::memory_order_relaxed);
}

std::optional<LibraryErrors::Reported> LibraryErrors::At(size_t index) const {
  MutexLock lock(mu_);
  if (index >= errors_.size()) return std::nullopt;
  return errors_[index];
}

bool LibraryErrors::has_overflowed() const {
  MutexLock lock(mu_);
  return has_overflowed_;
}

Status LibraryErrors::Take(StatusCode code, std::string_view what, std::string_view instead) {
  std::vector<Reported> errors;
  {
    MutexLock lock(mu_);
    errors.swap(errors_);
    has_overflowed_ = false;
    size_.store(0, std::memory_order_relaxed);
  }
  if (errors.empty() && !instead.empty()) {
    errors.push_back({0, TellsOfMemory(instead), std::string(instead)});
  }
  if (errors.empty()) return {code, StrCat(what, ": TensorRT does not say why")};
  const auto of_memory = std::find_if(errors.begin(), errors.end(),
                                      [](const Reported& each) { return each.is_of_memory; });
  if (of_memory != errors.end()) {
    return {StatusCode::kResourceExhausted, StrCat(what, ": ", of_memory->words)};
  }
  return {code, StrCat(what, ": ", errors.front().words)};
}

}  // namespace penstock::tensorrt
