// What of the Python backend the conformance suite does not see: requests one by one, and streams.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <map>
#include <thread>
#include <utility>

#include "backend_under_test.h"
#include "base/mutex.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Takes responses of INT32, as many as it has room for.
class FakeSender final : public ResponseSender {
 public:
  // With `goes_at_once` its client takes one response and goes.
  explicit FakeSender(size_t room, bool goes_at_once = false)
      : goes_at_once_(goes_at_once), room_(room) {}

  Status Send(std::vector<BatchOutput> outputs) override {
    const Status status = Take(outputs);
    if (status.ok() && goes_at_once_) GiveRoom(0, /*is_cancelled=*/true);
    return status;
  }
  Status Take(const std::vector<BatchOutput>& outputs) {
    MutexLock lock(mu_);
    if (is_cancelled_) return Cancelled("the client has gone");
    const Buffer& data = outputs.at(0).data;
    int32_t value = 0;
    std::memcpy(&value, data.data(), sizeof(value));
    values_.push_back(value);
    overdraws_ += room_ == 0;
    room_ -= room_ > 0;
    changed_.NotifyAll();
    return Status::Ok();
  }
  Status SendLast(std::vector<BatchOutput> outputs) override { return Send(std::move(outputs)); }
  void Finish(const Status& status) override {
    MutexLock lock(mu_);
    finishes_ += 1;
    status_ = status;
    changed_.NotifyAll();
  }
  bool is_cancelled() const override {
    MutexLock lock(mu_);
    return is_cancelled_;
  }
  size_t room() const override {
    MutexLock lock(mu_);
    return room_;
  }
  void NotifyRoom(std::function<void()> on_room) override {
    {
      MutexLock lock(mu_);
      if (room_ == 0 && !is_cancelled_) {
        on_room_ = std::move(on_room);
        return;
      }
    }
    on_room();
  }

  void NotifyCancelled(std::function<void()> on_cancelled) override {
    {
      MutexLock lock(mu_);
      if (!is_cancelled_) {
        on_cancelled_ = std::move(on_cancelled);
        return;
      }
    }
    on_cancelled();
  }

  void GiveRoom(size_t room, bool is_cancelled = false) {
    std::function<void()> on_room;
    std::function<void()> on_cancelled;
    {
      MutexLock lock(mu_);
      room_ += room;
      is_cancelled_ = is_cancelled;
      on_room = std::exchange(on_room_, nullptr);
      if (is_cancelled) on_cancelled = std::exchange(on_cancelled_, nullptr);
    }
    if (on_room) on_room();
    if (on_cancelled) on_cancelled();
  }
  std::vector<int32_t> AwaitValues(size_t count) {
    MutexLock lock(mu_);
    while (values_.size() < count && finishes_ == 0) changed_.Wait(mu_);
    return values_;
  }
  Status AwaitFinish() {
    MutexLock lock(mu_);
    while (finishes_ == 0) changed_.Wait(mu_);
    EXPECT_EQ(finishes_, 1);
    EXPECT_EQ(overdraws_, 0);
    return status_;
  }

 private:
  const bool goes_at_once_;
  mutable Mutex mu_;
  CondVar changed_;
  size_t room_ GUARDED_BY(mu_);
  bool is_cancelled_ GUARDED_BY(mu_) = false;
  int finishes_ GUARDED_BY(mu_) = 0;
  int overdraws_ GUARDED_BY(mu_) = 0;
  Status status_ GUARDED_BY(mu_);
  std::vector<int32_t> values_ GUARDED_BY(mu_);
  std::function<void()> on_room_ GUARDED_BY(mu_);
  std::function<void()> on_cancelled_ GUARDED_BY(mu_);
};

constexpr const char* kCounter = R"(
import numpy as np
class Model:
    inputs = {"n": ("INT32", (1,))}
    outputs = {"i": ("INT32", (1,))}
    def predict(self, batch):
        n = int(batch["n"][0, 0])
        if n == 77:
            import os
            os._exit(4)
        for i in range(n):
            yield {"i": np.array([[i]], np.int32)}
        if n == 0:
            raise ValueError("nothing to count")
)";

constexpr const char* kTriton = R"(
import numpy as np
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "n", "data_type": "TYPE_INT32", "dims": [1]})
        config.add_output({"name": "i", "data_type": "TYPE_INT32", "dims": [1]})
        config.set_max_batch_size(8)
        return config
    def execute(self, requests):
        responses = []
        for request in requests:
            n = request.inputs()[0].as_numpy()
            if n[0, 0] < 0:
                error = pb_utils.TritonError("negative", pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
            else:
                assert request.request_id() == "r"
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("i", n * 2)]))
        return responses
)";

// Sends in execute: as many as it is asked for; of -1 one, and then waits for its client to go.
constexpr const char* kInline = R"(
import time
import numpy as np
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "n", "data_type": "TYPE_INT32", "dims": [1]})
        config.add_output({"name": "i", "data_type": "TYPE_INT32", "dims": [1]})
        config.set_max_batch_size(8)
        config.set_model_transaction_policy({"decoupled": True})
        return config
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            n = request.inputs()[0].as_numpy()
            for i in range(abs(n[0, 0])):
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("i", n * 0 + i)]))
            while n[0, 0] < 0 and not sender.is_cancelled():
                time.sleep(0.01)
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
)";

class PythonRunTest : public testing::Test {
 protected:
  void Load(const char* source, const std::map<std::string, std::string>& parameters = {}) {
    for (const BackendUnderTest& row : BackendsUnderTest()) {
      if (row.name != "python") continue;
      LoadOptions options = MakeLoadOptions(directory_, row);
      options.parameters = parameters;
      std::ofstream(options.path) << source;
      auto loaded = (*row.open())->Load(options);
      ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
      model_ = *std::move(loaded);
      auto instance = model_->CreateInstance({"m_7_0"});
      ASSERT_TRUE(instance.ok()) << instance.status().ToString();
      instance_ = *std::move(instance);
    }
  }

  // One request for each number; room for each of their senders.
  Status Run(const std::vector<int32_t>& numbers, size_t room, bool goes_at_once = false) {
    const auto bytes = BytesOf(numbers);
    const Shape shape{static_cast<int64_t>(numbers.size()), 1};
    const BatchInput input{0, {"n", DataType::kInt32, shape, bytes}};
    std::vector<BatchRequest> requests;
    senders_.clear();
    for (size_t i = 0; i < numbers.size(); ++i) {
      senders_.push_back(std::make_shared<FakeSender>(room, goes_at_once));
      requests.push_back(
          {.id = "r", .parameters = {}, .wanted = wanted_, .responses = senders_[i]});
    }
    return instance_->ExecuteRequests({&input, 1}, requests);
  }

  const std::vector<size_t> wanted_ = {0};
  TempDir directory_;
  std::unique_ptr<BackendModel> model_;
  std::unique_ptr<BackendInstance> instance_;
  std::vector<std::shared_ptr<FakeSender>> senders_;
};

TEST_F(PythonRunTest, TritonModel_AnswersEachRequestForItself) {
  Load(kTriton);
  EXPECT_TRUE(instance_->answers_requests());
  EXPECT_EQ(model_->signature().max_batch_size, 8U);
  ASSERT_TRUE(Run({4, -1, 5}, 1).ok());
  EXPECT_THAT(senders_[0]->AwaitValues(1), ElementsAre(8));
  EXPECT_EQ(senders_[1]->AwaitFinish().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(senders_[1]->AwaitFinish().message(), "negative");
  EXPECT_THAT(senders_[2]->AwaitValues(1), ElementsAre(10));
  EXPECT_TRUE(senders_[2]->AwaitFinish().ok());
}

TEST_F(PythonRunTest, Generators_StreamAndEnd) {
  Load(kCounter);
  ASSERT_TRUE(Run({3, 0, 200}, 1000).ok());
  EXPECT_TRUE(senders_[0]->AwaitFinish().ok());
  EXPECT_THAT(senders_[0]->AwaitValues(3), ElementsAre(0, 1, 2));
  const Status failed = senders_[1]->AwaitFinish();
  EXPECT_EQ(failed.code(), StatusCode::kInternal);
  EXPECT_THAT(std::string(failed.message()), HasSubstr("ValueError: nothing to count"));
  EXPECT_TRUE(senders_[2]->AwaitFinish().ok());
  EXPECT_EQ(senders_[2]->AwaitValues(200).back(), 199);
}

TEST_F(PythonRunTest, SlowClient_HoldsUpItsOwnStreamOnly) {
  Load(kCounter);
  ASSERT_TRUE(Run({5}, 2).ok());
  const auto slow = senders_[0];
  EXPECT_EQ(slow->AwaitValues(2).size(), 2U);
  ASSERT_TRUE(Run({50}, 1000).ok());
  EXPECT_TRUE(senders_[0]->AwaitFinish().ok());
  EXPECT_EQ(slow->AwaitValues(2).size(), 2U);
  slow->GiveRoom(1);
  EXPECT_EQ(slow->AwaitValues(3).size(), 3U);
  slow->GiveRoom(100);
  EXPECT_TRUE(slow->AwaitFinish().ok());
}

TEST_F(PythonRunTest, CancelledStream_IsFinished) {
  Load(kCounter);
  ASSERT_TRUE(Run({1'000'000'000}, 1).ok());
  EXPECT_EQ(senders_[0]->AwaitValues(1).size(), 1U);
  senders_[0]->GiveRoom(0, /*is_cancelled=*/true);
  EXPECT_TRUE(senders_[0]->AwaitFinish().ok());  // which nobody hears
  EXPECT_EQ(senders_[0]->AwaitValues(1).size(), 1U);
}

TEST_F(PythonRunTest, WorkerThatEnds_FailsItsStreams) {
  Load(kCounter);
  ASSERT_TRUE(Run({1'000'000, 77}, 2).ok());
  for (const auto& sender : senders_) {
    const Status status = sender->AwaitFinish();
    EXPECT_EQ(status.code(), StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("exited with code 4"));
  }
}

TEST_F(PythonRunTest, StreamsOfADeadWorker_GoToAnother) {
  Load(kCounter, {{"max_restarts", "0"}});
  const auto other = model_->CreateInstance({"m_7_1"});
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(Run({77}, 2).ok());
  EXPECT_EQ(senders_[0]->AwaitFinish().code(), StatusCode::kUnavailable);
  while (instance_->is_available()) std::this_thread::yield();
  ASSERT_TRUE(Run({5}, 2).ok());
  EXPECT_EQ(senders_[0]->AwaitValues(2).size(), 2U);
  senders_[0]->GiveRoom(100);
  EXPECT_TRUE(senders_[0]->AwaitFinish().ok());
}

TEST_F(PythonRunTest, FileThatDescribesAnotherModel_IsNotServedAfterARestart) {
  Load(kCounter);
  std::string changed = kCounter;
  changed.replace(changed.find("INT32"), 5, "INT64");
  std::ofstream(directory_.Path("model.py")) << changed;
  EXPECT_EQ(model_->CreateInstance({"m_7_1"}).status().code(), StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Run({77}, 2).ok());
  Status status = senders_[0]->AwaitFinish();
  while (status.message().find("load it again") == std::string::npos) {
    ASSERT_EQ(status.code(), StatusCode::kUnavailable);
    status = Run({5}, 2);
  }
  EXPECT_THAT(std::string(status.message()), HasSubstr("the model's file has changed"));
}

TEST_F(PythonRunTest, FailedLoad_NamesNoPlaceOfTheServer) {
  for (const BackendUnderTest& row : BackendsUnderTest()) {
    if (row.name != "python") continue;
    const LoadOptions options = MakeLoadOptions(directory_, row);
    std::ofstream(options.path)
        << "raise ValueError('/srv/secret/w.bin', __file__, 'http://h/a/b 1/2 /')";
    const auto loaded = (*row.open())->Load(options);
    EXPECT_THAT(std::string(loaded.status().message()),
                HasSubstr("ValueError: ('w.bin', 'model.py', 'http://h/a/b 1/2 /')"));
  }
}

TEST_F(PythonRunTest, ClientThatHoldsUpExecute_IsGivenUpAtTheLimit) {
  Load(kInline, {{"execution_limit_s", "0.5"}});
  ASSERT_TRUE(Run({5, 3}, 2).ok());
  for (const auto& sender : senders_) {
    const Status status = sender->AwaitFinish();
    EXPECT_EQ(status.code(), StatusCode::kCancelled);
    EXPECT_THAT(std::string(status.message()), HasSubstr("waits in execute for the client"));
  }
  ASSERT_TRUE(Run({5}, 9).ok());  // by the same worker
  EXPECT_TRUE(senders_[0]->AwaitFinish().ok());
}

TEST_F(PythonRunTest, ClientThatGoes_IsToldToExecuteWhileItRuns) {
  Load(kInline, {{"execution_limit_s", "20"}});
  ASSERT_TRUE(Run({-1}, 9, /*goes_at_once=*/true).ok());
  EXPECT_TRUE(senders_[0]->AwaitFinish().ok());
}

TEST_F(PythonRunTest, UnloadedModel_FailsItsStreams) {
  Load(kCounter);
  ASSERT_TRUE(Run({1'000'000}, 2).ok());
  instance_.reset();
  EXPECT_FALSE(senders_[0]->AwaitFinish().ok());
  senders_[0]->GiveRoom(5);
}

}  // namespace
}  // namespace penstock
