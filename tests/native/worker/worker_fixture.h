// Workers of the puppet (puppet_worker.cc), for tests.

#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "worker/worker.h"

namespace penstock {

inline WorkerOptions PuppetOptions(const std::string& mode) {
  WorkerOptions options;
  options.label = "model 'm' version 1";
  options.log_name = "m_1_0";
  options.launch = {{PENSTOCK_PUPPET_WORKER, mode}, "{}"};
  return options;
}

// A worker that is ready.
inline std::unique_ptr<Worker> ReadyPuppet(WorkerOptions options) {
  auto worker = Worker::Start(std::move(options));
  EXPECT_TRUE(worker.ok()) << worker.status().ToString();
  EXPECT_TRUE((*worker)->Activate("m_1_0").ok());
  return *std::move(worker);
}

// Runs a batch of one FP32 tensor; the values of its answer.
inline Result<std::vector<float>> RunFloats(Worker& worker, SlabArena* arena,
                                            const std::vector<float>& values) {
  const std::span bytes(reinterpret_cast<const uint8_t*>(values.data()),
                        values.size() * sizeof(float));
  const Shape shape{static_cast<int64_t>(values.size())};
  const WorkerTensor input{0, {"INPUT0", DataType::kFp32, shape, bytes}};
  const size_t wanted[] = {0};
  arena->Reset();
  PENSTOCK_ASSIGN_OR_RETURN(const auto answers, worker.Run({{&input, 1}, wanted, {}}, arena));
  const Buffer& data = answers.at(0).outputs.at(0).data;
  std::vector<float> got(data.size() / sizeof(float));
  if (!got.empty()) std::memcpy(got.data(), data.data(), data.size());
  return got;
}

// Waits until the worker is ready, or is not.
inline void AwaitReady(const Worker& worker, bool is_ready) {
  while (worker.is_ready() != is_ready) {
    Mutex mu;
    CondVar never;
    MutexLock lock(mu);
    never.WaitFor(mu, kNsPerMs);
  }
}

}  // namespace penstock
