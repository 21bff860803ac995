#include "testing/fake_plan.h"

#include <sstream>
#include <string_view>
#include <utility>

#include "base/strcat.h"

namespace penstock {

using tensorrt::ContextMemory;
using tensorrt::PlanTensor;
using tensorrt::ProfileRange;

namespace {

constexpr size_t kX = 0, kB = 1, kY = 2, kN = 3;

// That of a profile, with rows and widths as they are open or fixed.
Shape Rows(const FakePlanOptions& options, int64_t rows, int64_t width) {
  return {options.rows > 0 ? options.rows : rows, options.width >= 0 ? options.width : width};
}

PlanTensor MakeInput(const FakePlanOptions& options, const std::string& name) {
  const bool is_bias = name == "b";
  PlanTensor tensor{.name = name, .dtype = DataType::kFp32, .is_input = true, .dims = {}};
  const auto shape = [&](int64_t rows, int64_t width) {
    Shape both = Rows(options, rows, width);
    if (is_bias) both[1] = 1;
    return both;
  };
  tensor.dims = shape(-1, -1);
  for (const FakeProfile& profile : options.profiles) {
    tensor.profiles.push_back({shape(profile.least, profile.least_width),
                               shape(profile.likely, profile.greatest_width),
                               shape(profile.greatest, profile.greatest_width)});
  }
  return tensor;
}

// What the words of a plan's file make of the options.
FakePlanOptions WithWords(FakePlanOptions options, std::string_view text) {
  std::istringstream words{std::string(text)};
  for (std::string word; words >> word;) {
    const size_t at = word.find('=');
    if (at == word.npos) continue;
    const std::string key = word.substr(0, at);
    const std::string value = word.substr(at + 1);
    if (key == "width") options.width = std::stoll(value);
    if (key == "rows") options.profiles.front().greatest = std::stoll(value);
    if (key == "trap_at") options.trap_at = std::stof(value);
    if (key == "context_mb") options.context_bytes = std::stoull(value) << 20;
  }
  return options;
}

}  // namespace

class FakePlan final : public tensorrt::Plan {
 public:
  FakePlan(FakePlanRuntime& runtime, FakePlanOptions options)
      : runtime_(runtime), options_(std::move(options)) {
    const int64_t rows = options_.rows > 0 ? options_.rows : -1;
    tensors_ = {MakeInput(options_, "x"), MakeInput(options_, "b")};
    tensors_.push_back({.name = "y", .dtype = DataType::kFp32, .dims = Rows(options_, -1, -1)});
    tensors_.push_back({.name = "n", .dtype = DataType::kUint32, .dims = {rows}});
    tensors_.insert(tensors_.end(), options_.more.begin(), options_.more.end());
  }

  const std::vector<PlanTensor>& tensors() const override { return tensors_; }
  size_t profiles() const override { return options_.profiles.size(); }
  size_t ContextBytes(size_t) const override { return options_.context_bytes; }
  Result<std::unique_ptr<tensorrt::PlanContext>> CreateContext(size_t profile,
                                                               const ContextMemory& memory,
                                                               gpu::Stream stream) override;

 private:
  friend class FakePlanContext;

  FakePlanRuntime& runtime_;
  const FakePlanOptions options_;
  std::vector<PlanTensor> tensors_;
};

class FakePlanContext final : public tensorrt::PlanContext {
 public:
  FakePlanContext(FakePlan& plan, size_t profile, const ContextMemory& memory)
      : plan_(plan), profile_(profile), memory_(memory), addresses_(plan.tensors_.size()) {
    ++plan_.runtime_.contexts_;
    ++plan_.runtime_.live_contexts_;
  }
  ~FakePlanContext() override { --plan_.runtime_.live_contexts_; }

  Status SetAddress(size_t tensor, void* data) override {
    addresses_.at(tensor) = data;
    return Status::Ok();
  }
  Status SetInputShape(size_t tensor, const Shape& shape) override;
  Result<Shape> OutputShape(size_t tensor) override;
  Status Enqueue(gpu::Stream stream) override;

 private:
  RowWork Work() const;

  FakePlan& plan_;
  const size_t profile_;
  const ContextMemory memory_;
  std::vector<void*> addresses_;
  Shape x_, b_;
};

Status FakePlanContext::SetInputShape(size_t tensor, const Shape& shape) {
  const ProfileRange& range = plan_.tensors_.at(tensor).profiles.at(profile_);
  for (size_t i = 0; i < shape.rank(); ++i) {
    if (range.least[i] <= shape[i] && shape[i] <= range.greatest[i]) continue;
    return Internal(StrCat("the profile does not take ", shape.ToString()));
  }
  (tensor == kX ? x_ : b_) = shape;
  return Status::Ok();
}

Result<Shape> FakePlanContext::OutputShape(size_t tensor) {
  if (tensor == kN && plan_.options_.has_unknown_output) return Shape{-1};
  if (x_.empty() || b_.empty()) return Internal("the inputs have no shapes yet");
  return tensor == kY ? x_ : Shape{x_[0]};
}

RowWork FakePlanContext::Work() const {
  RowWork work{.rows = static_cast<size_t>(x_[0]), .width = static_cast<size_t>(x_[1])};
  work.x = static_cast<const float*>(addresses_[kX]);
  work.b = static_cast<const float*>(addresses_[kB]);
  work.y = static_cast<float*>(addresses_[kY]);
  work.n = static_cast<uint32_t*>(addresses_[kN]);
  work.scratch = static_cast<uint8_t*>(memory_.data);
  work.scratch_bytes = memory_.size_bytes;
  work.has_trap = plan_.options_.trap_at.has_value();
  work.trap_at = plan_.options_.trap_at.value_or(0);
  return work;
}

Status FakePlanContext::Enqueue(gpu::Stream stream) {
  FakePlanRuntime& runtime = plan_.runtime_;
  if (runtime.enqueues_to_failure_.load() > 0 && runtime.enqueues_to_failure_.fetch_sub(1) == 1) {
    return Internal("the plan will not");
  }
  if (memory_.size_bytes < plan_.options_.context_bytes) return Internal("no memory to work in");
  if (x_.empty() || x_[0] != b_[0]) return Internal("the inputs have no shapes that fit");
  for (void* address : addresses_) {
    if (address == nullptr) return Internal("a tensor has no address");
  }
  return runtime.launch_(stream, Work());
}

Result<std::unique_ptr<tensorrt::PlanContext>> FakePlan::CreateContext(size_t profile,
                                                                       const ContextMemory& memory,
                                                                       gpu::Stream) {
  if (profile >= profiles()) return Internal(StrCat("there is no profile ", profile));
  return std::unique_ptr<tensorrt::PlanContext>(
      std::make_unique<FakePlanContext>(*this, profile, memory));
}

Result<std::unique_ptr<tensorrt::Plan>> FakePlanRuntime::Read(std::span<const uint8_t> bytes,
                                                              bool allows_host_code) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!text.starts_with(kFakePlanBytes)) return InvalidArgument("FakeRT does not take the plan");
  if (text.find("host-code") != text.npos && !allows_host_code) {
    return InvalidArgument("FakeRT does not take the plan: it has code for the host");
  }
  ++plans_;
  return std::unique_ptr<tensorrt::Plan>(
      std::make_unique<FakePlan>(*this, WithWords(options_, text)));
}

}  // namespace penstock
