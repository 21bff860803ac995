#include "engine/infer_request.h"

#include <gtest/gtest.h>

#include "engine_harness.h"

namespace penstock {
namespace {

TEST(InferRequestTest, ReusedRequest_RemembersNothing) {
  InferRequestPool pool;
  CompletionQueue completions;
  const InferRequest* first = nullptr;
  {
    const RequestRef ref = pool.Get();
    InferRequest& request = AsInfer(ref);
    first = &request;
    request.is_stream = true;
    request.completions = &completions;
    request.rows = 7;
    request.priority = 3;
    request.timeout_us = 5;
    request.deadline_ns = 9;
    request.key = {1};
    request.wanted.push_back({});
    request.outputs.push_back({});
    request.status = Internal("x");
  }
  const RequestRef ref = pool.Get();
  const InferRequest& request = AsInfer(ref);
  ASSERT_EQ(&request, first);
  EXPECT_FALSE(request.is_stream);
  EXPECT_EQ(request.completions, nullptr);
  EXPECT_EQ(request.rows, 1U);
  EXPECT_EQ(request.priority, 0U);
  EXPECT_EQ(request.timeout_us, 0);
  EXPECT_EQ(request.deadline_ns, kNever);
  EXPECT_TRUE(request.key.empty());
  EXPECT_TRUE(request.wanted.empty());
  EXPECT_TRUE(request.outputs.empty());
  EXPECT_TRUE(request.status.ok());
}

TEST(InferRequestTest, RequestOfManyTensors_DoesNotKeepItsMemoryInThePool) {
  InferRequestPool pool;
  {
    const RequestRef ref = pool.Get();
    AsInfer(ref).view.inputs.resize(4096);
  }
  const RequestRef ref = pool.Get();
  EXPECT_LT(AsInfer(ref).view.inputs.capacity(), 4096U);
}

TEST(InferRequestTest, Refuse_ArrivesInTheCompletionQueue) {
  CompletionQueue completions;
  const RequestRef ref = InferRequestPool::Shared().Get();
  AsInfer(ref).completions = &completions;
  AsInfer(ref).Refuse(NotFound("no"));
  std::vector<RequestRef> taken;
  completions.Take(&taken);
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_EQ(AsInfer(taken[0]).status.message(), "no");
}

TEST(InferRequestTest, EncodedSize_IsWhatIsWritten) {
  EngineHarness harness;
  harness.Serve(IdentitySpec());
  const RequestRef ref = harness.Send(InferMessage().Id("me").Row({1, 2, 3}));
  ASSERT_TRUE(harness.Await(1)[0].status.ok());
  const InferRequest& request = AsInfer(ref);
  std::string bytes(request.EncodedSize() + 1, 'x');
  request.EncodeTo({reinterpret_cast<uint8_t*>(bytes.data()), bytes.size() - 1});
  EXPECT_EQ(bytes.back(), 'x');
  EXPECT_NE(bytes.find("me"), std::string::npos);
  EXPECT_NE(bytes.find(RawOf<float>({1, 2, 3})), std::string::npos);
}

}  // namespace
}  // namespace penstock
