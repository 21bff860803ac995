// What BindRequest makes of a good request: rows, key, priority, wanted outputs.

#include "engine/bind_request.h"

#include <gtest/gtest.h>

#include "engine_harness.h"

namespace penstock {
namespace {

class BindRequestTest : public testing::Test {
 protected:
  // The request bound to `spec`.
  InferRequest& Bind(const VersionSpec& spec, const InferMessage& message) {
    bytes_ = message.bytes();
    ref_ = InferRequestPool::Shared().Get();
    InferRequest& request = AsInfer(ref_);
    EXPECT_TRUE(ParseInferRequest(SpanOf(bytes_), HostPool::Shared(), &request.view).ok());
    const Status status = BindRequest(spec, shared_memory_, &request);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return request;
  }

  SharedMemory shared_memory_{{}};
  std::string bytes_;
  RequestRef ref_;
};

// A FP32 [-1, 2], B FP32 [-1] which may be left out.
VersionSpec VariableSpec() {
  VersionSpec spec = IdentitySpec();
  spec.inputs = {
      {.name = "A", .dtype = DataType::kFp32, .dims = {-1, 2}, .reshape = {}},
      {.name = "B", .dtype = DataType::kFp32, .dims = {-1}, .reshape = {}, .is_optional = true}};
  return spec;
}

InferMessage MessageA(int64_t rows, int64_t length) {
  return InferMessage().Input("A", "FP32", {rows, length, 2},
                              RawOf(std::vector<float>(rows * length * 2)));
}

TEST_F(BindRequestTest, Rows_AreTheFirstDimension) {
  EXPECT_EQ(Bind(VariableSpec(), MessageA(3, 1)).rows, 3U);
}

TEST_F(BindRequestTest, WithoutBatchDimension_OneRowAndTheWholeShapeIsTheModels) {
  VersionSpec spec = IdentitySpec();
  spec.max_batch_size = 0;
  const InferRequest& request =
      Bind(spec, InferMessage().Input("IN", "FP32", {5}, RawOf(std::vector<float>(5))));
  EXPECT_EQ(request.rows, 1U);
  EXPECT_EQ(request.key, BatchKey{5});
}

TEST_F(BindRequestTest, Key_IsWhatTheModelLeavesOpen) {
  const BatchKey alone = Bind(VariableSpec(), MessageA(1, 4)).key;
  EXPECT_EQ(alone, Bind(VariableSpec(), MessageA(2, 4)).key);
  EXPECT_NE(alone, Bind(VariableSpec(), MessageA(1, 5)).key);
  const std::string one = RawOf<float>({1});
  EXPECT_NE(alone, Bind(VariableSpec(), MessageA(1, 4).Input("B", "FP32", {1, 1}, one)).key);
  EXPECT_NE(alone, Bind(VariableSpec(), MessageA(1, 4).Input("B", "FP32", {1, 0}, "")).key);
}

TEST_F(BindRequestTest, Key_OfFixedShapesIsEmpty) {
  VersionSpec spec = IdentitySpec();
  spec.inputs[0].dims = {2};
  EXPECT_TRUE(Bind(spec, InferMessage().Row({1, 2})).key.empty());
}

TEST_F(BindRequestTest, LeftOutInput_IsNull) {
  const InferRequest& request = Bind(VariableSpec(), MessageA(1, 1));
  ASSERT_EQ(request.inputs.size(), 2U);
  EXPECT_NE(request.inputs[0], nullptr);
  EXPECT_EQ(request.inputs[1], nullptr);
}

TEST_F(BindRequestTest, NoOutputsNamed_AllAreWantedInTheModelsOrder) {
  VersionSpec spec = IdentitySpec();
  spec.outputs.push_back(spec.outputs[0]);
  spec.outputs[1].name = "SECOND";
  const InferRequest& all = Bind(spec, InferMessage().Row({1}));
  ASSERT_EQ(all.wanted.size(), 2U);
  EXPECT_EQ(all.wanted[1].index, 1U);
  const InferRequest& one = Bind(spec, InferMessage().Row({1}).Output("SECOND").Output("OUT"));
  ASSERT_EQ(one.wanted.size(), 2U);
  EXPECT_EQ(one.wanted[0].index, 1U);
}

TEST_F(BindRequestTest, Classification_TheLastOfAKeyCounts) {
  const InferRequest& request = Bind(IdentitySpec(), InferMessage().Row({1}).Output("OUT", {3, 2}));
  EXPECT_EQ(request.wanted[0].classification, 2U);
}

TEST_F(BindRequestTest, PriorityAndTimeout_AsEitherNumber) {
  const auto bind = [&](uint32_t kind) -> InferRequest& {
    return Bind(IdentitySpec(), InferMessage()
                                    .Row({1})
                                    .Parameter("priority", kind, 2)
                                    .Parameter("timeout", kind, 50)
                                    .Parameter("sequence_like", kind, 9));
  };
  EXPECT_EQ(bind(2).priority, 2U);
  EXPECT_EQ(bind(5).priority, 2U);
  EXPECT_EQ(bind(2).timeout_us, 50);
}

TEST_F(BindRequestTest, ParametersOfOurOwn_AreNotTheModels) {
  EXPECT_TRUE(IsReservedParameter("penstock_background"));
  EXPECT_TRUE(IsReservedParameter("priority"));
  EXPECT_FALSE(IsReservedParameter("penstock_other"));
}

TEST_F(BindRequestTest, HugePriority_IsNoSmallOne) {
  const uint64_t huge = (uint64_t{1} << 32) + 1;  // 1 in the lower half
  EXPECT_EQ(Bind(IdentitySpec(), InferMessage().Row({1}).Parameter("priority", 5, huge)).priority,
            UINT32_MAX);
}

}  // namespace
}  // namespace penstock
