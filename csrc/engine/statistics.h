// Statistics: what a version has done, in the terms of the Open Inference statistics extension plus
// histograms. Updated once per batch.

#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>

#include "base/mutex.h"
#include "base/status.h"
#include "batcher/batcher.h"

namespace penstock {

class InferRequest;

struct CountAndTime {
  uint64_t count = 0;
  uint64_t ns = 0;

  void Add(uint64_t n, int64_t each_ns) {
    count += n;
    ns += n * static_cast<uint64_t>(each_ns > 0 ? each_ns : 0);
  }
};

// Upper bounds in microseconds; the last count is for what lies above the last bound.
inline constexpr std::array<int64_t, 16> kHistogramBoundsUs = {
    50,     100,    250,     500,     1'000,   2'500,     5'000,     10'000,
    25'000, 50'000, 100'000, 250'000, 500'000, 1'000'000, 2'500'000, 10'000'000};

struct Histogram {
  std::array<uint64_t, kHistogramBoundsUs.size() + 1> counts{};
  uint64_t sum_us = 0;

  void Add(int64_t value_ns, uint64_t n = 1);
};

struct BatchSizeStatistics {
  uint64_t count = 0;
  uint64_t compute_input_ns = 0;
  uint64_t compute_infer_ns = 0;
  uint64_t compute_output_ns = 0;
};

// Of background requests, which all else leaves out.
struct BackgroundStatistics {
  uint64_t success = 0;  // requests
  uint64_t fail = 0;
  uint64_t rows = 0;     // of successful requests
  uint64_t batches = 0;  // of background requests alone, and
  uint64_t busy_ns = 0;  // how long they took: a part of VersionStatistics::busy_ns
};

struct VersionStatistics {
  CountAndTime success;  // per request: from arrival to outcome
  CountAndTime fail;
  CountAndTime queue;                               // per successful request, as the three below
  CountAndTime compute_input;                       // gather
  CountAndTime compute_infer;                       // the backend
  CountAndTime compute_output;                      // scatter
  uint64_t inference_count = 0;                     // rows of successful requests
  uint64_t execution_count = 0;                     // batches that served somebody
  int64_t last_inference_ms = 0;                    // Unix time
  uint64_t busy_ns = 0;                             // instances, from a batch's start to its end
  std::map<uint32_t, BatchSizeStatistics> batches;  // by rows served, those that joined too
  std::map<StatusCode, uint64_t> failures;          // requests by code
  Histogram queue_us;                               // per successful request, as the five below
  Histogram input_us;                               // gather
  Histogram infer_us;                               // the backend
  Histogram output_us;                              // scatter
  Histogram compute_us;                             // the three together
  Histogram request_us;
  BackgroundStatistics background;
};

// When the phases of a batch began and ended, on the batcher's clock.
struct BatchTimes {
  int64_t start_ns = 0;
  int64_t gathered_ns = 0;
  int64_t computed_ns = 0;
  int64_t end_ns = 0;
};

// Threading: thread-safe.
class StatisticsRecorder {
 public:
  // A batch ended; `outcomes`: of its requests. One that nobody was served by counts as failures
  // only. `unix_ms`: the wall clock. Before its requests are finished. `kept_rows`: of requests
  // that were taken out of the batch, as they go on behind it.
  void RecordBatch(const Batch& batch, const BatchTimes& times, std::span<const Status> outcomes,
                   uint32_t kept_rows, int64_t unix_ms);
  // One of those has ended, at `times.end_ns`; the other times are its batch's.
  void RecordKept(const InferRequest& request, const BatchTimes& times, const Status& outcome,
                  int64_t unix_ms);
  // A request failed without having been in a batch.
  void RecordRefusal(const InferRequest& request, StatusCode code, int64_t waited_ns);

  VersionStatistics Snapshot() const;

 private:
  static void AddBackground(const InferRequest& request, bool has_succeeded,
                            VersionStatistics* statistics);
  static void AddRequest(const InferRequest& request, const BatchTimes& times,
                         const Status& outcome, VersionStatistics* statistics);
  static void AddPhases(const BatchTimes& times, uint64_t requests, VersionStatistics* statistics);
  static void AddBatch(const BatchTimes& times, uint32_t rows, VersionStatistics* statistics);

  mutable Mutex mu_;
  // Guarded by mu_.
  VersionStatistics statistics_ GUARDED_BY(mu_);
};

}  // namespace penstock
