// Error: what a call of the GPU's runtime answered, and what follows from it.

#pragma once

namespace penstock::gpu {

// cudaError_t's values, so that the real runtime's need no translation; any value may come, these
// are those that have a name here.
enum class [[nodiscard]] Error : int{
    kSuccess = 0,
    kInvalidValue = 1,
    kMemoryAllocation = 2,
    kInsufficientDriver = 35,
    kNoDevice = 100,
    kInvalidDevice = 101,
    kEccUncorrectable = 214,
    kNvlinkUncorrectable = 220,
    kContained = 226,
    kInvalidResourceHandle = 400,
    kNotReady = 600,  // no error: the event or stream has work left
    kIllegalAddress = 700,
    kLaunchOutOfResources = 701,
    kLaunchTimeout = 702,
    kContextIsDestroyed = 709,
    kAssert = 710,
    kHostMemoryAlreadyRegistered = 712,
    kHostMemoryNotRegistered = 713,
    kHardwareStackError = 714,
    kIllegalInstruction = 715,
    kMisalignedAddress = 716,
    kInvalidAddressSpace = 717,
    kInvalidPc = 718,
    kLaunchFailure = 719,
    kTensorMemoryLeak = 721,
    kMpsClientTerminated = 810,
    kStreamCaptureUnsupported = 900,
    kStreamCaptureInvalidated = 901,
    kExternalDevice = 911,
    kUnknown = 999,
};

// True for an error that stays: the process's context is lost, every later call answers the same,
// and only another process can use the device again. kUnknown may be one, and may not: drivers answer
// it where host memory cannot be registered, for one.
constexpr bool IsSticky(Error error) {
  switch (error) {
    case Error::kEccUncorrectable:
    case Error::kNvlinkUncorrectable:
    case Error::kContained:
    case Error::kIllegalAddress:
    case Error::kLaunchTimeout:
    case Error::kContextIsDestroyed:
    case Error::kAssert:
    case Error::kHardwareStackError:
    case Error::kIllegalInstruction:
    case Error::kMisalignedAddress:
    case Error::kInvalidAddressSpace:
    case Error::kInvalidPc:
    case Error::kLaunchFailure:
    case Error::kTensorMemoryLeak:
    case Error::kMpsClientTerminated:
    case Error::kExternalDevice:
      return true;
    default:
      return false;
  }
}

}  // namespace penstock::gpu
