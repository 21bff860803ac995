#include "backends/tensorrt/library_errors.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "base/strcat.h"

namespace penstock::tensorrt {
namespace {

bool HasOneOf(std::span<const std::string_view> signs, std::string_view words) {
  return std::any_of(signs.begin(), signs.end(), [&](std::string_view sign) {
    return words.find(sign) != std::string_view::npos;
  });
}

// "Version tag does not match. Note: Current Version: 239, Serialized Engine Version: 237",
// "The engine plan file is not compatible with this version of TensorRT, expecting library version
// 11.1.0 got 10.16.0", "Trying to load an engine created with incompatible serialization version",
// "Failed due to an old deserialization call on a newer plan file"
bool TellsOfVersion(std::string_view words) {
  constexpr std::array<std::string_view, 5> kSigns = {
      "Version tag does not match", "kSERIALIZATION_VERSION",
      "not compatible with this version of TensorRT", "incompatible serialization version",
      "on a newer plan file"};
  return HasOneOf(kSigns, words);
}

std::string& FirstOfThread() {
  thread_local std::string first;
  return first;
}

}  // namespace

// TensorRT's and CUDA's: "Cuda Runtime (out of memory)", "Error Code 2: OutOfMemory (Requested size
// was 1024 bytes.)", "Requested amount of GPU memory (1024 bytes) could not be allocated.", "CUDA
// initialization failure with error: 2 In checkCudaInstallation"
bool TellsOfMemory(std::string_view words) {
  constexpr std::array<std::string_view, 6> kSigns = {
      "out of memory",          "OutOfMemory",
      "could not be allocated", "cudaErrorMemoryAllocation",
      "std::bad_alloc",         "CUDA initialization failure with error: 2 "};
  return HasOneOf(kSigns, words);
}

Status WithLibrary(const Status& refused, std::string_view library) {
  if (!TellsOfVersion(refused.message())) return refused;
  return {refused.code(), StrCat(refused.message(),
                                 "; another version of TensorRT built the plan than the one that "
                                 "is to run it, ",
                                 library)};
}

void FirstLogged::Add(std::string_view words) {
  if (FirstOfThread().empty()) FirstOfThread() = words.empty() ? "an error without words" : words;
}

std::string FirstLogged::Take() { return std::exchange(FirstOfThread(), {}); }

void FirstLogged::Forget() { FirstOfThread().clear(); }

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
