// What a request claims about shared memory, checked when it is bound and before anything is read.

#include "engine/shared_tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>

#include "engine/bind_request.h"
#include "engine_harness.h"
#include "testing/shm_object.h"

namespace penstock {
namespace {

using Shared = InferMessage::Shared;

struct WrongClaim {
  std::string name;
  Shared shared;
  StatusCode code;
  std::string text;
};

void PrintTo(const WrongClaim& wrong, std::ostream* out) { *out << wrong.name; }

// The region "r" has 16 bytes, the input needs 8.
std::vector<WrongClaim> WrongClaims() {
  const auto kInvalid = StatusCode::kInvalidArgument;
  return {
      {"unknown",
       {"other", 8},
       StatusCode::kNotFound,
       "Unable to find shared memory region: 'other', for tensor 'IN' for model 'm'"},
      {"no_size",
       {"r", {}},
       kInvalid,
       "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter "
       "for tensor 'IN' for model 'm'"},
      {"size_without_region",
       {"", 8},
       kInvalid,
       "'shared_memory_byte_size' can not be specified without 'shared_memory_region'"},
      {"offset_without_region",
       {"", {}, 8},
       kInvalid,
       "'shared_memory_offset' can not be specified without 'shared_memory_region'"},
      {"negative_size",
       {"r", -8},
       kInvalid,
       "invalid value for 'shared_memory_byte_size' parameter for tensor 'IN' for model 'm': "
       "expected >= 0, got -8"},
      {"negative_offset",
       {"r", 8, -1},
       kInvalid,
       "invalid value for 'shared_memory_offset' parameter for tensor 'IN'"},
      {"offset_at_the_end",
       {"r", 8, 16},
       kInvalid,
       "Invalid offset for shared memory region: 'r' of 16 bytes, for tensor 'IN' for model 'm': "
       "got 16"},
      {"beyond_the_end",
       {"r", 8, 9},
       kInvalid,
       "Invalid offset + byte size for shared memory region: 'r' of 16 bytes, for tensor 'IN'"},
      {"sum_that_overflows",
       {"r", INT64_MAX, 15},
       kInvalid,
       "Invalid offset + byte size for shared memory region: 'r'"},
      {"greatest_offset",
       {"r", 8, INT64_MAX},
       kInvalid,
       "Invalid offset for shared memory region: 'r'"},
      {"least_offset", {"r", 8, INT64_MIN}, kInvalid, "expected >= 0"},
      {"too_small",
       {"r", 7},
       kInvalid,
       "input byte size mismatch for input 'IN' for model 'm'. Expected 8, got 7"},
      {"too_large",
       {"r", 9},
       kInvalid,
       "input byte size mismatch for input 'IN' for model 'm'. Expected 8, got 9"},
      {"nothing",
       {"r", 0},
       kInvalid,
       "input byte size mismatch for input 'IN' for model 'm'. Expected 8, got 0"},
  };
}

class SharedTensorTest : public testing::Test {
 protected:
  SharedTensorTest() { EXPECT_TRUE(memory_.Register(object_.Region("r", 16)).ok()); }

  Status Bind(const VersionSpec& spec, const InferMessage& message) {
    bytes_ = message.bytes();
    ref_ = InferRequestPool::Shared().Get();
    const Status parsed =
        ParseInferRequest(SpanOf(bytes_), HostPool::Shared(), &AsInfer(ref_).view);
    return parsed.ok() ? BindRequest(spec, memory_, &AsInfer(ref_)) : parsed;
  }

  ShmObject object_{size_t{16}};
  SharedMemory memory_{{.is_allowed = true, .max_request_bytes = 12}};
  std::string bytes_;
  RequestRef ref_;
};

class WrongClaimTest : public SharedTensorTest, public testing::WithParamInterface<WrongClaim> {};

TEST_P(WrongClaimTest, IsRefusedWithItsReason) {
  const Status status =
      Bind(IdentitySpec(), InferMessage().SharedInput("IN", "FP32", {1, 2}, GetParam().shared));
  EXPECT_EQ(status.code(), GetParam().code) << status.ToString();
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(GetParam().text));
}

INSTANTIATE_TEST_SUITE_P(Shared, WrongClaimTest, testing::ValuesIn(WrongClaims()),
                         [](const auto& info) { return info.param.name; });

TEST_F(SharedTensorTest, Claims_AreKeptWithTheirRegion) {
  const InferMessage message =
      InferMessage().SharedInput("IN", "FP32", {1, 2}, {"r", 8, 8}).SharedOutput("OUT", {"r", 16});
  ASSERT_TRUE(Bind(IdentitySpec(), message).ok());
  const InferRequest& request = AsInfer(ref_);
  ASSERT_NE(request.SharedInput(0), nullptr);
  EXPECT_EQ(request.SharedInput(0)->offset, 8U);
  EXPECT_EQ(request.InputBytes(0), 8U);
  ASSERT_NE(request.SharedOutput(0), nullptr);
  EXPECT_EQ(request.SharedOutput(0)->size_bytes, 16U);
}

TEST_F(SharedTensorTest, OneInputOfTwo_TheOtherTravelsInTheMessage) {
  VersionSpec spec = IdentitySpec();
  spec.inputs.push_back({.name = "MORE", .dtype = DataType::kFp32, .dims = {1}, .reshape = {}});
  const InferMessage message = InferMessage()
                                   .SharedInput("IN", "FP32", {1, 2}, {"r", 8})
                                   .Input("MORE", "FP32", {1, 1}, RawOf<float>({7}));
  ASSERT_TRUE(Bind(spec, message).ok());
  EXPECT_NE(AsInfer(ref_).SharedInput(0), nullptr);
  EXPECT_EQ(AsInfer(ref_).SharedInput(1), nullptr);
  EXPECT_EQ(AsInfer(ref_).InputBytes(1), 4U);
}

TEST_F(SharedTensorTest, InputsOverTheLimit_AreRefused) {
  VersionSpec spec = IdentitySpec();
  spec.inputs.push_back({.name = "MORE", .dtype = DataType::kFp32, .dims = {2}, .reshape = {}});
  const InferMessage message = InferMessage()
                                   .SharedInput("IN", "FP32", {1, 2}, {"r", 8})
                                   .SharedInput("MORE", "FP32", {1, 2}, {"r", 8});
  EXPECT_EQ(
      Bind(spec, message).ToString(),
      "RESOURCE_EXHAUSTED: inputs of 16 bytes in shared memory for 'm' exceed the limit of 12 "
      "bytes");
}

TEST_F(SharedTensorTest, InputsOverTheLimit_CountAsRefusedBySize) {
  Engine::Options options;
  options.allow_client_shm = true;
  options.limits.max_request_bytes = 200;
  EngineHarness harness(options);
  harness.Serve(IdentitySpec());
  const ShmObject large{size_t{1024}};
  ASSERT_TRUE(harness.engine.shared_memory().Register(large.Region("r", 1024)).ok());
  EXPECT_TRUE(harness.Run(InferMessage().SharedInput("IN", "FP32", {1, 2}, {"r", 8})).status.ok());
  EXPECT_EQ(harness.engine.admission().refused(Refusal::kSize), 0U);
  const Outcome outcome =
      harness.Run(InferMessage().SharedInput("IN", "FP32", {1, 256}, {"r", 1024}));
  EXPECT_EQ(outcome.status.code(), StatusCode::kResourceExhausted) << outcome.status.ToString();
  EXPECT_EQ(harness.engine.admission().refused(Refusal::kSize), 1U);
}

TEST_F(SharedTensorTest, TypedContentsToo_IsRefused) {
  std::string input;
  protozero::pbf_writer writer(input);
  writer.add_message(5, std::string());
  // Contents of the input "IN" in a second piece of the same field would be another input: they are
  // put inside it by hand.
  const std::string whole = InferMessage().SharedInput("IN", "FP32", {1, 2}, {"r", 8}).bytes();
  std::string message = InferMessage().bytes();
  protozero::pbf_writer out(message);
  std::string body = whole.substr(whole.find("\x0a\x02IN"));
  out.add_message(5, body + input);
  ref_ = InferRequestPool::Shared().Get();
  const Status status = ParseInferRequest(SpanOf(message), HostPool::Shared(), &AsInfer(ref_).view);
  EXPECT_EQ(status.ToString(),
            "INVALID_ARGUMENT: unexpected 'content' provided when using shared memory for input "
            "tensor 'IN' for model 'm'");
}

TEST_F(SharedTensorTest, ClassificationIntoSharedMemory_IsRefused) {
  const Status status =
      Bind(IdentitySpec(), InferMessage().Row({1}).SharedOutput("OUT", {"r", 16}, 2));
  EXPECT_EQ(status.ToString(),
            "INVALID_ARGUMENT: output can't set both 'shared_memory_region' and 'classification': "
            "tensor 'OUT' for model 'm'");
}

TEST_F(SharedTensorTest, Text_NeedsRoomForItsLengthsAndIsReadLater) {
  VersionSpec spec = IdentitySpec();
  spec.inputs[0].dtype = DataType::kBytes;
  const auto bind = [&](int64_t elements, int64_t size_bytes) {
    return Bind(spec, InferMessage().SharedInput("IN", "BYTES", {1, elements}, {"r", size_bytes}));
  };
  EXPECT_TRUE(bind(2, 8).ok());
  EXPECT_TRUE(bind(2, 11).ok());
  EXPECT_TRUE(bind(0, 0).ok());
  EXPECT_THAT(std::string(bind(2, 7).message()), testing::HasSubstr("Expected at least 8, got 7"));
  EXPECT_THAT(std::string(bind(0, 4).message()), testing::HasSubstr("Expected 0, got 4"));
}

}  // namespace
}  // namespace penstock
