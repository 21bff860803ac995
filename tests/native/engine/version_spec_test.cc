// What a specification may say, and how it is matched with the model file's signature.

#include "engine/version_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <ostream>

#include "engine_harness.h"

namespace penstock {
namespace {

using testing::HasSubstr;

struct WrongSpec {
  std::string name;
  std::function<void(VersionSpec*)> change;
  StatusCode code;
  std::string text;
};
void PrintTo(const WrongSpec& c, std::ostream* os) { *os << c.name; }

std::vector<WrongSpec> Cases() {
  constexpr auto kInvalid = StatusCode::kInvalidArgument;
  constexpr auto kFailed = StatusCode::kFailedPrecondition;
  const Shape deep(std::vector<int64_t>(kMaxRank, 1));
  return {
      {"no_instance", [](auto* s) { s->instance_count = 0; }, kInvalid, "instance count"},
      {"no_output", [](auto* s) { s->outputs.clear(); }, kInvalid, "at least one output"},
      {"no_queue_policy", [](auto* s) { s->queue_policies.clear(); }, kInvalid, "queue policy"},
      {"default_priority_0", [](auto* s) { s->default_priority = 0; }, kInvalid,
       "default priority level 0 is not in [1, 1]"},
      {"default_priority_2", [](auto* s) { s->default_priority = 2; }, kInvalid,
       "default priority level 2 is not in [1, 1]"},
      {"negative_delay", [](auto* s) { s->max_queue_delay_us = -1; }, kInvalid, "queue delay"},
      {"preferred_0", [](auto* s) { s->preferred_batch_sizes = {0}; }, kInvalid,
       "preferred batch size 0 is not in [1, 8]"},
      {"preferred_9", [](auto* s) { s->preferred_batch_sizes = {9}; }, kInvalid,
       "preferred batch size 9 is not in [1, 8]"},
      {"too_deep_input", [deep](auto* s) { s->inputs[0].dims = deep; }, kInvalid,
       "input 'IN' has more than 16 dimensions with the batch dimension"},
      {"too_deep_reshape", [deep](auto* s) { s->outputs[0].reshape = deep; }, kInvalid,
       "output 'OUT' has more than 16 dimensions with the batch dimension"},
      {"unknown_input", [](auto* s) { s->inputs[0].name = "X"; }, kFailed,
       "model 'm' version 1: input 'X' is not in the model file"},
      {"unknown_output", [](auto* s) { s->outputs[0].name = "X"; }, kFailed,
       "output 'X' is not in the model file"},
      {"other_type", [](auto* s) { s->inputs[0].dtype = DataType::kInt8; }, kFailed,
       "input 'IN' is FP32 in the model file, but INT8 in the configuration"},
      {"order_over_priorities",
       [](auto* s) {
         s->preserves_ordering = true;
         s->queue_policies.resize(2);
       },
       kInvalid, "only one priority level is allowed with preserve_ordering"},
      {"order_over_delay",
       [](auto* s) {
         s->preserves_ordering = true;
         s->queue_policies[0].delays_on_timeout = true;
         s->queue_policies[0].honours_request_timeout = true;
       },
       kInvalid, "timeout_action DELAY is not allowed with preserve_ordering"},
      {"input_left_out", [](auto* s) { s->inputs.clear(); }, kFailed,
       "input 'IN' of the model file is not in the configuration"},
  };
}

class VersionSpecFaultTest : public testing::TestWithParam<WrongSpec> {};

TEST_P(VersionSpecFaultTest, IsRefusedByName) {
  VersionSpec spec = IdentitySpec();
  GetParam().change(&spec);
  const Status status = BindToSignature(IdentitySignature(), &spec);
  EXPECT_EQ(status.code(), GetParam().code);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().text));
}

INSTANTIATE_TEST_SUITE_P(Table, VersionSpecFaultTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

TEST(VersionSpecTest, Tensors_AreFoundByNameWhateverTheOrder) {
  const TensorSpec a{"A", DataType::kFp32, {-1}};
  const TensorSpec b{"B", DataType::kInt8, {-1}};
  const ModelSignature signature{{a, b}, {b, a}};
  VersionSpec spec = IdentitySpec();
  spec.inputs = {{.name = "B", .dtype = DataType::kInt8, .dims = {}, .reshape = {}},
                 {.name = "A", .dtype = DataType::kFp32, .dims = {}, .reshape = {}}};
  spec.outputs = {{.name = "A", .dtype = DataType::kFp32, .dims = {}, .reshape = {}, .labels = {}}};
  ASSERT_TRUE(BindToSignature(signature, &spec).ok());
  EXPECT_EQ(spec.inputs[0].backend_index, 1U);
  EXPECT_EQ(spec.inputs[1].backend_index, 0U);
  EXPECT_EQ(spec.outputs[0].backend_index, 1U);
}

TEST(VersionSpecTest, OptionalInputOfTheFile_MayBeLeftOut) {
  ModelSignature signature = IdentitySignature();
  signature.inputs.push_back({"MORE", DataType::kFp32, {-1}, true});
  VersionSpec spec = IdentitySpec();
  EXPECT_TRUE(BindToSignature(signature, &spec).ok());
}

TEST(VersionSpecTest, Strings_HaveAFixedShapeAndNoFixedSize) {
  VersionSpec spec = IdentitySpec();
  spec.inputs[0].dims = {1};
  EXPECT_TRUE(spec.has_fixed_sizes());
  spec.inputs[0].dtype = DataType::kBytes;
  EXPECT_TRUE(spec.has_fixed_shapes());
  EXPECT_FALSE(spec.has_fixed_sizes());
}

TEST(VersionSpecTest, PreferredSizes_AreSorted) {
  VersionSpec spec = IdentitySpec();
  spec.preferred_batch_sizes = {8, 2, 4};
  ASSERT_TRUE(BindToSignature(IdentitySignature(), &spec).ok());
  EXPECT_EQ(spec.preferred_batch_sizes, (std::vector<uint32_t>{2, 4, 8}));
}

}  // namespace
}  // namespace penstock
