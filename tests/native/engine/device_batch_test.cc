// Which tensors in a GPU's memory a backend is told of as parts, and which go through the host, and
// what their requests get.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "engine_harness.h"
#include "gpu/ipc_devices.h"
#include "testing/fake_gpu.h"
#include "testing/shm_object.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string TextOfPart(const DevicePart& part) {
  return TextOf({part.memory->data() + part.offset, part.size_bytes});
}

// OUT is IN, as a backend on a GPU computes it: what a fake GPU has of a client's memory can be read
// here as well.
Status EchoParts(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                 const BatchParts& parts, std::vector<BatchOutput>* outputs) {
  std::string bytes = TextOf(inputs[0].tensor.data);
  for (const InputPart& part : parts.inputs) {
    bytes += part.device.memory != nullptr ? TextOfPart(part.device) : TextOf(part.host);
  }
  bool is_read = true;
  const size_t row_bytes = bytes.size() / static_cast<size_t>(inputs[0].tensor.shape[0]);
  for (const OutputPart& part : parts.outputs) {
    is_read = part.is_read_on_host;
    const size_t size_bytes = part.rows * row_bytes;
    if (size_bytes > part.device.size_bytes) continue;
    std::memcpy(part.device.memory->data() + part.device.offset,
                bytes.data() + part.first_row * row_bytes, size_bytes);
  }
  outputs->push_back(MakeOutput(wanted[0], inputs[0].tensor.dtype, inputs[0].tensor.shape,
                                is_read ? SpanOf(bytes) : std::span<const uint8_t>()));
  return Status::Ok();
}

class DeviceBatchTest : public testing::Test {
 protected:
  Engine::Options Options() {
    Engine::Options options;
    options.allow_client_shm = true;
    options.devices =
        std::make_shared<gpu::IpcDevices>([this]() -> Result<std::unique_ptr<gpu::Api>> {
          auto opened = std::make_unique<FakeGpu>(FakeGpuOptions{.devices = 2});
          gpu_ = opened.get();
          return std::unique_ptr<gpu::Api>(std::move(opened));
        });
    return options;
  }
  SharedMemory& memory() { return harness_.engine.shared_memory(); }
  void Register(const ShmObject& object, const std::string& name, int64_t device_id = 0) {
    const Status status = memory().RegisterCuda(object.CudaRegion(name, object.size(), device_id),
                                                object.IpcHandle());
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  // Serves a model that reaches the memory of GPU 0.
  std::shared_ptr<ModelVersion> Serve(VersionSpec spec = IdentitySpec(),
                                      ModelSignature signature = IdentitySignature()) {
    FakeModelSpec model;
    model.signature = std::move(signature);
    model.execute = [this](auto inputs, auto wanted, auto* outputs) {
      runs_.push_back("whole");
      return Echo(inputs, wanted, outputs);
    };
    model.execute_parts = [this](auto inputs, auto wanted, const auto& parts, auto* outputs) {
      runs_.push_back(Describe(inputs, parts));
      if (during_) during_();
      return EchoParts(inputs, wanted, parts, outputs);
    };
    model.reaches = [](const ExportedMemory& asked) { return asked.device() == 0; };
    auto version = harness_.engine.CreateVersion(std::make_shared<FakeModel>(model), spec);
    EXPECT_TRUE(version.ok()) << version.status().ToString();
    harness_.engine.SetServing("m", {*version}, {});
    return *version;
  }
  // All messages as one batch.
  std::vector<Outcome> RunTogether(const std::vector<InferMessage>& messages) {
    const auto version = Serve();
    for (const InferMessage& message : messages) harness_.Send(message);
    harness_.engine.Start(version);
    return harness_.Await(messages.size());
  }

  // "3 rows: host 4, device 8; 0+1 kept" = parts of the input in bytes, and of the output in rows.
  static std::string Describe(std::span<const BatchInput> inputs, const BatchParts& parts) {
    std::string text = std::to_string(inputs[0].tensor.shape[0]) + " rows:";
    if (!inputs[0].tensor.data.empty()) {
      text += " whole " + std::to_string(inputs[0].tensor.data.size());
    }
    for (const InputPart& part : parts.inputs) {
      const bool on_device = part.device.memory != nullptr;
      text += on_device ? " device " : " host ";
      text += std::to_string(on_device ? part.device.size_bytes : part.host.size());
    }
    for (const OutputPart& part : parts.outputs) {
      text += "; " + std::to_string(part.first_row) + "+" + std::to_string(part.rows);
      text += part.is_read_on_host ? " shared" : " alone";
    }
    return text;
  }

  FakeGpu* gpu_ = nullptr;  // once a region is registered
  EngineHarness harness_{Options()};
  std::vector<std::string> runs_;  // of the model
  std::function<void()> during_;   // each of those with parts
};

InferMessage In(const std::string& region, uint64_t offset = 0) {
  return InferMessage().SharedInput("IN", "FP32", {1, 1}, {region, 4, offset});
}

TEST_F(DeviceBatchTest, RequestOnTheGpu_IsCopiedByNobodyHere) {
  ShmObject object(RawOf<float>({7}) + "....");
  Register(object, "r");
  const int before = gpu_->calls();
  const auto outcomes = RunTogether({In("r").SharedOutput("OUT", {"r", 4, 4})});
  ASSERT_TRUE(outcomes[0].status.ok()) << outcomes[0].status.ToString();
  EXPECT_THAT(runs_, ElementsAre("1 rows: device 4; 0+1 alone"));
  EXPECT_EQ(gpu_->calls(), before);
  EXPECT_EQ(object.Read(8), RawOf<float>({7, 7}));
  EXPECT_EQ(outcomes[0].outputs, std::vector<std::string>{""});
  EXPECT_EQ(outcomes[0].shapes, std::vector<std::string>{"[1,1]"});
}

TEST_F(DeviceBatchTest, RequestsOfAllKinds_AreOneBatchInTheirOrder) {
  ShmObject on_gpu(RawOf<float>({2, 4}) + "....");
  ShmObject out_of_reach(RawOf<float>({3}));
  ShmObject on_host(RawOf<float>({5}));
  Register(on_gpu, "gpu");
  Register(out_of_reach, "other", 1);
  ASSERT_TRUE(memory().Register(on_host.Region("host", 4)).ok());
  const auto outcomes =
      RunTogether({InferMessage().Row({1}), In("gpu").SharedOutput("OUT", {"gpu", 4, 8}),
                   In("other"), In("gpu", 4), In("host")});
  EXPECT_THAT(runs_, ElementsAre("5 rows: host 4 device 4 host 4 device 4 host 4; 1+1 shared"));
  float expected = 1;
  for (const Outcome& outcome : outcomes) {
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.ToString();
    const std::string row = RawOf<float>({expected});
    EXPECT_EQ(outcome.outputs[0], expected == 2 ? "" : row);
    expected += 1;
  }
  EXPECT_EQ(on_gpu.Read(12), RawOf<float>({2, 4, 2}));
}

TEST_F(DeviceBatchTest, BatchWithoutRegionsOrOutOfReach_IsExecutedAsEver) {
  ShmObject object(RawOf<float>({3}));
  Register(object, "other", 1);
  RunTogether({InferMessage().Row({1}), In("other")});
  RunTogether({InferMessage().Row({1})});
  EXPECT_THAT(runs_, ElementsAre("whole", "whole"));
}

TEST_F(DeviceBatchTest, OutputsAlone_GoWhereTheyAreWanted) {
  ShmObject object(std::string(8, '.'));
  Register(object, "r");
  const auto outcomes = RunTogether({InferMessage().Row({1}).SharedOutput("OUT", {"r", 4, 0}),
                                     InferMessage().Row({2}).SharedOutput("OUT", {"r", 4, 4})});
  EXPECT_THAT(runs_, ElementsAre("2 rows: whole 8; 0+1 alone; 1+1 alone"));
  EXPECT_EQ(object.Read(8), RawOf<float>({1, 2}));
  EXPECT_TRUE(outcomes[0].status.ok() && outcomes[1].status.ok());
}

TEST_F(DeviceBatchTest, OutputThatHasNoRoom_FailsItsRequestAlone) {
  ShmObject object(std::string(8, '.'));
  Register(object, "r");
  const auto outcomes = RunTogether(
      {InferMessage().Row({1, 2}).SharedOutput("OUT", {"r", 4}), InferMessage().Row({3, 4})});
  EXPECT_EQ(outcomes[0].status.ToString(),
            "INTERNAL: shared memory size specified with the request for output 'OUT' (4 bytes) "
            "should be at least 8 bytes to hold the results of model 'm'");
  EXPECT_EQ(outcomes[1].outputs[0], RawOf<float>({3, 4}));
  EXPECT_EQ(object.Read(8), std::string(8, '.'));
}

TEST_F(DeviceBatchTest, RowsThatFollowEachOther_AreOnePart) {
  ShmObject object(RawOf<float>({1, 2, 3, 5}));
  Register(object, "r");
  const auto outcomes = RunTogether({In("r"), In("r", 4), In("r", 12), InferMessage().Row({6}),
                                     InferMessage().Row({7}), In("r", 8)});
  EXPECT_THAT(runs_, ElementsAre("6 rows: device 8 device 4 host 8 device 4"));
  const float expected[] = {1, 2, 5, 6, 7, 3};
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(outcomes[i].outputs[0], RawOf<float>({expected[i]}));
}

TEST_F(DeviceBatchTest, RequestWhoseHostMemoryFails_TakesItsPartsAlong) {
  ShmObject on_gpu(RawOf<float>({1, 2}));
  ShmObject on_host(RawOf<float>({5}));
  Register(on_gpu, "gpu");
  ASSERT_TRUE(memory().Register(on_host.Region("host", 4)).ok());
  on_host.Resize(0);
  const auto outcomes = RunTogether({In("gpu"), In("host"), In("gpu", 4)});
  EXPECT_THAT(runs_, ElementsAre("2 rows: device 8")) << "what is left follows each other";
  EXPECT_THAT(std::string(outcomes[1].status.message()), HasSubstr("has become too small"));
  EXPECT_EQ(outcomes[0].outputs[0], RawOf<float>({1}));
  EXPECT_EQ(outcomes[2].outputs[0], RawOf<float>({2}));
}

// Both are checked in our own copy, which there must be.
TEST_F(DeviceBatchTest, TextAndBools_GoThroughTheHost) {
  for (const auto& [dtype, name, bytes] :
       {std::tuple{DataType::kBytes, "BYTES", RawBytes({"a"})},
        std::tuple{DataType::kBool, "BOOL", std::string("\1", 1)},
        std::tuple{DataType::kBool, "BOOL", std::string("\2", 1)}}) {
    VersionSpec spec = IdentitySpec();
    spec.inputs[0].dtype = spec.outputs[0].dtype = dtype;
    const ModelSignature signature{{{"IN", dtype, {-1, -1}}}, {{"OUT", dtype, {-1, -1}}}};
    ShmObject object(bytes);
    Register(object, "r");
    harness_.engine.Start(Serve(spec, signature));
    const Outcome outcome =
        harness_.Run(InferMessage().SharedInput("IN", name, {1, 1}, {"r", bytes.size()}));
    EXPECT_EQ(outcome.status.ok(), bytes != "\2") << outcome.status.ToString();
    ASSERT_TRUE(memory().Unregister(RegionKind::kCuda, "").ok());
  }
  EXPECT_THAT(runs_, ElementsAre("whole", "whole"));
}

TEST_F(DeviceBatchTest, UnregisteredWhileRunning_IsClosedWhenItsBatchIsOver) {
  ShmObject object(RawOf<float>({7}) + "....");
  Register(object, "r");
  Gate gate;
  during_ = [&gate] { gate.Pass(); };
  harness_.engine.Start(Serve());
  harness_.Send(In("r").SharedOutput("OUT", {"r", 4, 4}));
  gate.AwaitArrived(1);
  ASSERT_TRUE(memory().Unregister(RegionKind::kCuda, "").ok());
  EXPECT_EQ(memory().TestOnlyCloser(RegionKind::kCuda).TestOnlyClosed(), 0U);
  gate.Open();
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
  EXPECT_EQ(object.Read(8), RawOf<float>({7, 7}));
  memory().TestOnlyCloser(RegionKind::kCuda).WaitIdle();
  EXPECT_EQ(memory().TestOnlyCloser(RegionKind::kCuda).TestOnlyClosed(), 1U);
}

TEST_F(DeviceBatchTest, PartsThatTheBackendKeeps_KeepTheirRegion) {
  ShmObject object(RawOf<float>({7}));
  Register(object, "r");
  std::shared_ptr<const ExportedMemory> kept;
  FakeModelSpec model;
  model.signature = IdentitySignature();
  model.reaches = [](const ExportedMemory&) { return true; };
  model.execute_parts = [&kept](auto, auto, const BatchParts& parts, auto*) {
    kept = parts.inputs[0].device.memory;  // of a device that is lost
    return Unavailable("GPU 0: it hangs");
  };
  const auto version =
      harness_.engine.CreateVersion(std::make_shared<FakeModel>(model), IdentitySpec());
  ASSERT_TRUE(version.ok());
  harness_.engine.SetServing("m", {*version}, {});
  harness_.engine.Start(*version);
  EXPECT_EQ(harness_.Run(In("r")).status.ToString(), "UNAVAILABLE: GPU 0: it hangs");
  ASSERT_TRUE(memory().Unregister(RegionKind::kCuda, "r").ok());
  EXPECT_EQ(memory().TestOnlyCloser(RegionKind::kCuda).TestOnlyClosed(), 0U);
  EXPECT_EQ(TextOf({kept->data(), 4}), RawOf<float>({7}));
  kept.reset();
  memory().TestOnlyCloser(RegionKind::kCuda).WaitIdle();
  EXPECT_EQ(memory().TestOnlyCloser(RegionKind::kCuda).TestOnlyClosed(), 1U);
}

}  // namespace
}  // namespace penstock
