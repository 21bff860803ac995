#include "engine/statistics.h"

#include <algorithm>

#include "engine/infer_request.h"

namespace penstock {

void Histogram::Add(int64_t value_ns, uint64_t n) {
  const int64_t value_us = std::max<int64_t>(value_ns, 0) / 1000;
  const auto bound =
      std::lower_bound(kHistogramBoundsUs.begin(), kHistogramBoundsUs.end(), value_us);
  counts[bound - kHistogramBoundsUs.begin()] += n;
  sum_us += n * static_cast<uint64_t>(value_us);
}

void StatisticsRecorder::RecordBatch(const Batch& batch, const BatchTimes& times,
                                     const Status& outcome, int64_t unix_ms) {
  const uint64_t n = batch.requests.size();
  MutexLock lock(mu_);
  VersionStatistics& s = statistics_;
  s.busy_ns += static_cast<uint64_t>(times.end_ns - times.start_ns);
  if (!outcome.ok()) {
    s.failures[outcome.code()] += n;
    for (const RequestRef& request : batch.requests) {
      s.fail.Add(1, times.end_ns - AsInfer(request).received_ns);
    }
    return;
  }
  s.last_inference_ms = unix_ms;
  s.execution_count += 1;
  s.inference_count += batch.rows;
  s.compute_input.Add(n, times.gathered_ns - times.start_ns);
  s.compute_infer.Add(n, times.computed_ns - times.gathered_ns);
  s.compute_output.Add(n, times.end_ns - times.computed_ns);
  s.compute_us.Add(times.end_ns - times.start_ns, n);
  BatchSizeStatistics& by_size = s.batches[batch.rows];
  by_size.count += 1;
  by_size.compute_input_ns += static_cast<uint64_t>(times.gathered_ns - times.start_ns);
  by_size.compute_infer_ns += static_cast<uint64_t>(times.computed_ns - times.gathered_ns);
  by_size.compute_output_ns += static_cast<uint64_t>(times.end_ns - times.computed_ns);
  for (const RequestRef& request : batch.requests) {
    const int64_t queued_ns = times.start_ns - request->enqueue_ns();
    const int64_t total_ns = times.end_ns - AsInfer(request).received_ns;
    s.queue.Add(1, queued_ns);
    s.success.Add(1, total_ns);
    s.queue_us.Add(queued_ns);
    s.request_us.Add(total_ns);
  }
}

void StatisticsRecorder::RecordRefusal(StatusCode code, int64_t waited_ns) {
  MutexLock lock(mu_);
  statistics_.failures[code] += 1;
  statistics_.fail.Add(1, waited_ns);
}

VersionStatistics StatisticsRecorder::Snapshot() const {
  MutexLock lock(mu_);
  return statistics_;
}

}  // namespace penstock
