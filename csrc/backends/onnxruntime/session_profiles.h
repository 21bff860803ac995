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

namespace penstock::ort {

// The provider's options trt_profile_*_shapes. Empty: every shape is fixed.
using ProfileOptions = std::map<std::string, std::string>;

// Of inputs with those ranges, one of each. Pure.
ProfileOptions ProfileOptionsOf(const ModelSignature& signature,
                                const std::vector<tensorrt::ProfileRange>& ranges);

// TensorRT's provider builds an engine for the shapes that it is told of, or anew whenever a run
// brings others; and what the inputs are is known only when a session is open. So the first session
// is one without the provider, for that alone, and no other is, however many lanes there are.
//
// Threading: thread-compatible.
class ProfiledSessions final : public SessionOpener {
 public:
  // `profiles`: null for a session without TensorRT's provider.
  using OpenOne = std::function<Result<std::unique_ptr<DeviceSession>>(
      int device, gpu::Stream stream, const ProfileOptions* profiles)>;

  ProfiledSessions(std::string label, RangeSettings ranges, OpenOne open_one)
      : label_(std::move(label)), ranges_(std::move(ranges)), open_one_(std::move(open_one)) {}

  // Errors: of `open_one` and InputRanges.
  Result<std::unique_ptr<DeviceSession>> Open(int device, gpu::Stream stream) override;

 private:
  const std::string label_;
  const RangeSettings ranges_;
  const OpenOne open_one_;
  std::optional<ProfileOptions> profiles_;  // none: no session was opened yet
};

}  // namespace penstock::ort
