#include "testing/fake_session.h"

#include <array>
#include <map>
#include <thread>
#include <utility>

#include "base/strcat.h"
#include "testing/row_work.h"

namespace penstock {

using gpu::Error;
using ort::DeviceSession;
using ort::OutputDim;
using ort::SessionBinding;
using ort::SessionSignature;

namespace {

OutputDim DimOf(int64_t size, size_t input, size_t axis) {
  if (size >= 0) return {.source = OutputDim::Source::kFixed, .size = size};
  return {.source = OutputDim::Source::kInput, .input = input, .axis = axis};
}

SessionSignature MakeSignature(const FakeSessionOptions& options) {
  const int64_t rows = options.rows > 0 ? options.rows : -1;
  SessionSignature made;
  made.signature.inputs = {{options.x, DataType::kFp32, {rows, options.width}},
                           {"b", DataType::kFp32, {rows, 1}}};
  made.signature.inputs.insert(made.signature.inputs.end(), options.more_inputs.begin(),
                               options.more_inputs.end());
  made.signature.outputs = {{"y", DataType::kFp32, {rows, options.width}},
                            {"n", DataType::kUint32, {rows}}};
  made.output_plans = {{{DimOf(rows, 0, 0), DimOf(options.width, 0, 1)}, true},
                       {{DimOf(rows, 1, 0)}, !options.has_unknown_output}};
  made.on_host = {false, options.host_input == HostInput::kTold};
  return made;
}

// What the engine would find out by itself: that two runs of a session are at once.
class RunGuard {
 public:
  explicit RunGuard(std::atomic<int>& running) : running_(running), is_alone_(++running == 1) {}
  ~RunGuard() { --running_; }
  bool is_alone() const { return is_alone_; }

 private:
  std::atomic<int>& running_;
  const bool is_alone_;
};

// What a session's bindings share.
struct FakeSessionState {
  // What a run has staged is kept to the end of one that waits.
  Error Keep(FakeGpu& gpu, ort::RunEnd end);

  FakeSessionLog& log;
  const gpu::Stream stream;
  FakeClock* const clock;
  std::atomic<int> running{0};
  std::atomic<int64_t> last_rows{0};
  std::map<std::thread::id, int> kept = {};  // of the one that runs
};

Error FakeSessionState::Keep(FakeGpu& gpu, ort::RunEnd end) {
  int& own = kept[std::this_thread::get_id()];
  ++own;
  for (int most = log.most_kept; most < own;) {
    if (log.most_kept.compare_exchange_weak(most, own)) break;
  }
  if (end == ort::RunEnd::kEnqueued) return Error::kSuccess;
  ++log.waits;
  own = 0;
  return gpu.SynchronizeStream(stream);
}

struct Bound {
  void* data = nullptr;
  Shape shape;
};

using Values = std::shared_ptr<const std::vector<float>>;

class FakeBinding final : public SessionBinding {
 public:
  FakeBinding(FakeGpu& gpu, ort::RunTurns& turns, FakeSessionState& state, bool has_host_input)
      : SessionBinding(turns),
        gpu_(gpu),
        log_(state.log),
        state_(state),
        stream_(state.stream),
        has_host_input_(has_host_input) {}

  Status BindInput(size_t input, void* data, const Shape& shape) override;
  Status BindOutput(size_t output, void* data, const Shape& shape) override {
    ++log_.output_binds;
    outputs_.at(output) = {data, shape};
    return Status::Ok();
  }

 private:
  Status RunOnce(ort::RunEnd end) override;
  static Values Read(const Bound& bound) {
    const auto* begin = static_cast<const float*>(bound.data);
    return std::make_shared<std::vector<float>>(begin, begin + bound.shape[0]);
  }
  FakeWork MakeWork() const;
  void TakeTime();

  FakeGpu& gpu_;
  FakeSessionLog& log_;
  FakeSessionState& state_;
  const gpu::Stream stream_;
  const bool has_host_input_;
  std::array<Bound, 2> inputs_, outputs_;
  Values copied_;  // when it was bound; null: it is read where it lies
};

Status FakeBinding::BindInput(size_t input, void* data, const Shape& shape) {
  ++log_.input_binds;
  inputs_.at(input) = {data, shape};
  if (input != 1 || !has_host_input_) return Status::Ok();
  copied_ = nullptr;
  if (!gpu_.IsOnDevice(data)) return Status::Ok();
  ++log_.host_copies;
  const Error error = gpu_.SynchronizeStream(stream_);
  if (error != Error::kSuccess) return Internal("what was bound cannot be copied");
  copied_ = Read(inputs_[1]);
  return Status::Ok();
}

FakeWork FakeBinding::MakeWork() const {
  const Shape& x = inputs_[0].shape;
  RowWork work{static_cast<size_t>(x[0]), static_cast<size_t>(x[1])};
  work.x = static_cast<const float*>(inputs_[0].data);
  work.b = static_cast<const float*>(inputs_[1].data);
  work.y = static_cast<float*>(outputs_[0].data);
  work.n = static_cast<uint32_t*>(outputs_[1].data);
  if (!has_host_input_) return MakeRowWork(work);
  const Values values = copied_ != nullptr ? copied_ : Read(inputs_[1]);
  work.b = values->data();
  FakeWork made = MakeRowWork(work);
  made.reads.pop_back();  // b is nothing of the device's
  made.run = [values, run = std::move(made.run)] { return run(); };
  return made;
}

void FakeBinding::TakeTime() {
  const int64_t rows = inputs_[0].shape[0];
  const bool is_change = state_.last_rows.exchange(rows) != rows;
  if (is_change) ++log_.row_changes;
  if (state_.clock != nullptr) state_.clock->Advance((rows + (is_change ? 20 : 0)) * 1000);
}

Status FakeBinding::RunOnce(ort::RunEnd end) {
  const RunGuard guard(state_.running);
  if (!guard.is_alone()) return InvalidArgument("two runs of a session at once");
  if (log_.runs_to_failure.load() > 0 && log_.runs_to_failure.fetch_sub(1) == 1) {
    return Internal(log_.failure);
  }
  const Shape& x = inputs_[0].shape;
  const bool fits = x.rank() == 2 && inputs_[1].shape == Shape{x[0], 1} && outputs_[0].shape == x &&
                    outputs_[1].shape == Shape{x[0]};
  if (!fits) return InvalidArgument("what is bound does not fit the model");
  TakeTime();
  if (log_.on_run) log_.on_run(x);
  Error error = gpu_.Launch(stream_, MakeWork());
  if (error == Error::kSuccess) error = state_.Keep(gpu_, end);
  if (error == Error::kSuccess) return Status::Ok();
  return Internal(StrCat("the session's kernel failed: ", gpu_.ErrorName(error)));
}

class FakeSession final : public DeviceSession {
 public:
  FakeSession(FakeGpu& gpu, FakeSessionLog& log, const FakeSessionOptions& options,
              gpu::Stream stream)
      : gpu_(gpu),
        state_{log, stream, options.clock},
        signature_(MakeSignature(options)),
        has_host_input_(options.host_input != HostInput::kNone) {
    ++log.live;
  }
  ~FakeSession() override { --state_.log.live; }

  const SessionSignature& signature() const override { return signature_; }
  Result<std::unique_ptr<SessionBinding>> Bind() override {
    return std::unique_ptr<SessionBinding>(
        std::make_unique<FakeBinding>(gpu_, turns(), state_, has_host_input_));
  }

 private:
  FakeGpu& gpu_;
  FakeSessionState state_;
  const SessionSignature signature_;
  const bool has_host_input_;
};

}  // namespace

Result<std::unique_ptr<DeviceSession>> FakeSessionOpener::Open(int, gpu::Stream stream) {
  if (log_.opens_to_failure.load() > 0 && log_.opens_to_failure.fetch_sub(1) == 1) {
    return InvalidArgument("the engine does not open it");
  }
  ++log_.opened;
  return std::unique_ptr<DeviceSession>(
      std::make_unique<FakeSession>(gpu_, log_, options_, stream));
}

}  // namespace penstock
