// DeviceHealth: what an error of the GPU's runtime means, and whether the device can still be used.
//
//   kReady --sticky error, or Fault()--> kFaulted      there is no way back but another process
//
// | error                         | the call that met it      | the device |
// |-------------------------------|---------------------------|------------|
// | of memory                     | RESOURCE_EXHAUSTED        | stays      |
// | any other that is not sticky  | INTERNAL, that batch only | stays      |
// | sticky (gpu_error.h)          | UNAVAILABLE               | kFaulted   |
// | cudaErrorUnknown              | as one or the other: a harmless call tells   |
//
// On a faulted device everything in flight ends UNAVAILABLE and nothing new is taken. The log says it
// once; who finds the device lost (BackendInstance::is_available) ends the process, which is started
// again.

#pragma once

#include <string>
#include <string_view>

#include "base/mutex.h"
#include "base/status.h"
#include "gpu/gpu_api.h"

namespace penstock::gpu {

// Threading: thread-safe.
// Ownership: borrows the Api.
// Blocking: never.
class DeviceHealth {
 public:
  // `device` is for messages: "GPU 0".
  DeviceHealth(Api& api, std::string device);

  // The Status of a call that answered `error`. `what` was tried: "copy the inputs of resnet".
  // kNotReady is no answer to ask about.
  Status Check(Error error, std::string_view what);
  // The same for an engine, whose own words do not say whether the device is lost: the runtime is
  // asked, for an error that stays by a harmless call and then for the last one, whose kNotReady is
  // only what some event was asked before. Called on the thread that the engine failed on.
  Status CheckEngine(const Status& answer, std::string_view what);
  // The device does not do its work, whatever its runtime says.
  void Fault(std::string_view why);

  bool is_faulted() const { return !fault().ok(); }
  Status fault() const;  // why; OK while the device is ready

 private:
  Status EnterFault(std::string message);
  bool IsLost();  // a harmless call says so: an error that stays is the answer to any

  // Constant after construction.
  Api& api_;
  const std::string device_;

  mutable Mutex mu_;
  // Guarded by mu_.
  Status fault_ GUARDED_BY(mu_);
};

}  // namespace penstock::gpu
