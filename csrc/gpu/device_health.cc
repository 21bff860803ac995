#include "gpu/device_health.h"

#include <cassert>
#include <utility>

#include "base/log.h"
#include "base/strcat.h"

namespace penstock::gpu {

DeviceHealth::DeviceHealth(Api& api, std::string device) : api_(api), device_(std::move(device)) {}

Status DeviceHealth::Check(Error error, std::string_view what) {
  if (error == Error::kSuccess) return Status::Ok();
  assert(error != Error::kNotReady);
  std::string message = StrCat(device_, ": cannot ", what, ": ", api_.ErrorName(error), " (",
                               static_cast<int>(error), ")");
  if (IsSticky(error) || (error == Error::kUnknown && IsLost())) {
    return EnterFault(std::move(message));
  }
  // The runtime remembers it for this thread, and would answer a later kernel launch with it.
  static_cast<void>(api_.TakeLastError());
  if (error == Error::kMemoryAllocation) return ResourceExhausted(std::move(message));
  return Internal(std::move(message));
}

Status DeviceHealth::CheckEngine(const Status& answer, std::string_view what) {
  if (answer.ok()) return answer;
  // An engine may have a runtime of its own (TensorRT has), whose errors ours does not remember. One
  // that stays is what a harmless call answers, too; any other says nothing about the engine.
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  Status now = Check(api_.MemoryInfo(&free_bytes, &total_bytes), what);
  if (now.code() == StatusCode::kUnavailable) return now;
  const Error last = api_.TakeLastError();
  if (last != Error::kNotReady) PENSTOCK_RETURN_IF_ERROR(Check(last, what));
  return answer;
}

bool DeviceHealth::IsLost() {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  const Error error = api_.MemoryInfo(&free_bytes, &total_bytes);
  return IsSticky(error) || error == Error::kUnknown;
}

void DeviceHealth::Fault(std::string_view why) {
  static_cast<void>(EnterFault(StrCat(device_, ": ", why)));
}

Status DeviceHealth::fault() const {
  MutexLock lock(mu_);
  return fault_;
}

Status DeviceHealth::EnterFault(std::string message) {
  Status fault = Unavailable(std::move(message));
  {
    MutexLock lock(mu_);
    if (!fault_.ok()) return fault;
    fault_ = fault;
  }
  Log(LogLevel::kError, "gpu", StrCat(fault.message(), "; the device is lost to this process"));
  return fault;
}

}  // namespace penstock::gpu
