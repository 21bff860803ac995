// ProfiledSessions: sessions with TensorRT's provider, which is told of shapes before it opens one.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/onnxruntime/device_session.h"
#include "backends/onnxruntime/session_ranges.h"
#include "base/status.h"
#include "gpu/device.h"

namespace penstock::ort {

// The provider's options trt_profile_*_shapes. Empty: every shape is fixed, or they cannot be said.
using ProfileOptions = std::map<std::string, std::string>;

// Whether a shape among the inputs that must be given is open.
bool HasOpenInput(const ModelSignature& signature);

// Of inputs with those ranges, one of each. None where an input's name has a character that the
// provider takes for the end of it (':' or ','). Pure.
ProfileOptions ProfileOptionsOf(const ModelSignature& signature,
                                const std::vector<tensorrt::ProfileRange>& ranges);

struct ProfiledOptions {
  std::string label;  // the start of messages
  RangeSettings ranges = {};
  // Where the provider keeps engines of this model, and times that it measured; empty: nowhere.
  std::string engine_directory = {};
};

// TensorRT's provider builds an engine for the shapes that it is told of, or anew whenever a run
// brings others; and what the inputs are is known only when a session is open. So the first session
// is one without the provider, for that alone, and no other is, however many lanes there are.
//
// A provider that takes a part of the model only wants shapes of that part's inputs, whose names
// nobody else knows: then, and where names cannot be said, it is told of none, and each session is run
// at both ends of its shapes (WarmUp), so that it has built what it needs before requests come; one
// that does not run on zeros builds within the first requests.
//
// An engine that is kept and does not open (its file was cut short) fails every session that looks for
// it, as kept times fail every build: what is kept of the model is removed then, once, and built again,
// unless the device is lost or has less memory left than what is kept takes.
//
// Threading: thread-compatible.
// Ownership: borrows the device, which outlives it.
class ProfiledSessions final : public SessionOpener {
 public:
  // `profiles`: null for a session without TensorRT's provider.
  using OpenOne = std::function<Result<std::unique_ptr<DeviceSession>>(
      int device, gpu::Stream stream, const ProfileOptions* profiles)>;

  ProfiledSessions(gpu::Device& device, ProfiledOptions options, OpenOne open_one)
      : device_(device), options_(std::move(options)), open_one_(std::move(open_one)) {}

  // Errors: of `open_one`, InputRanges and WarmUp.
  Result<std::unique_ptr<DeviceSession>> Open(int device, gpu::Stream stream) override;

 private:
  // What is known of the model's inputs once a session was open.
  struct Inputs {
    std::vector<tensorrt::ProfileRange> ranges;
    ProfileOptions profiles;
    bool are_open = false;
  };

  Status LearnInputs(int device, gpu::Stream stream);
  Result<std::unique_ptr<DeviceSession>> OpenProfiled(int device, gpu::Stream stream);
  Result<std::unique_ptr<DeviceSession>> OpenAndWarmUp(int device, gpu::Stream stream);
  // OK: what is kept may be to blame for `opened`.
  Status CheckKept(const Status& opened);

  gpu::Device& device_;
  const ProfiledOptions options_;
  const OpenOne open_one_;
  std::optional<Inputs> inputs_;  // none: no session was opened yet
  bool has_emptied_ = false;      // the directory of engines
};

}  // namespace penstock::ort
