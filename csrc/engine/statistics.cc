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
                                     std::span<const Status> outcomes, uint32_t kept_rows,
                                     int64_t unix_ms) {
  uint64_t requests = 0;
  uint32_t rows = 0;
  uint32_t joined_rows = 0;
  const uint64_t busy_ns = static_cast<uint64_t>(times.end_ns - times.start_ns);
  MutexLock lock(mu_);
  statistics_.busy_ns += busy_ns;
  for (size_t i = 0; i < batch.requests.size(); ++i) {
    const InferRequest& request = AsInfer(batch.requests[i]);
    AddRequest(request, times, outcomes[i], &statistics_);
    if (!outcomes[i].ok()) continue;
    requests += request.is_background ? 0 : 1;
    (request.is_background ? joined_rows : rows) += request.rows;
  }
  if (batch.reason == CloseReason::kBackground) {
    statistics_.background.batches += 1;
    statistics_.background.busy_ns += busy_ns;
    return;
  }
  if (requests == 0 && joined_rows == 0 && kept_rows == 0) return;
  if (requests != 0 || kept_rows != 0) statistics_.last_inference_ms = unix_ms;
  statistics_.inference_count += rows;
  AddPhases(times, requests, &statistics_);
  AddBatch(times, rows + joined_rows + kept_rows, &statistics_);
}

void StatisticsRecorder::RecordKept(const InferRequest& request, const BatchTimes& times,
                                    const Status& outcome, int64_t unix_ms) {
  MutexLock lock(mu_);
  AddRequest(request, times, outcome, &statistics_);
  if (!outcome.ok() || request.is_background) return;
  statistics_.last_inference_ms = unix_ms;
  statistics_.inference_count += request.rows;
  AddPhases(times, 1, &statistics_);
}

void StatisticsRecorder::AddBackground(const InferRequest& request, bool has_succeeded,
                                       VersionStatistics* statistics) {
  BackgroundStatistics& background = statistics->background;
  (has_succeeded ? background.success : background.fail) += 1;
  if (has_succeeded) background.rows += request.rows;
}

void StatisticsRecorder::AddRequest(const InferRequest& request, const BatchTimes& times,
                                    const Status& outcome, VersionStatistics* statistics) {
  if (request.is_background) return AddBackground(request, outcome.ok(), statistics);
  const int64_t total_ns = times.end_ns - request.received_ns;
  if (!outcome.ok()) {
    statistics->failures[outcome.code()] += 1;
    statistics->fail.Add(1, total_ns);
    return;
  }
  const int64_t queued_ns = times.start_ns - request.enqueue_ns();
  statistics->queue.Add(1, queued_ns);
  statistics->success.Add(1, total_ns);
  statistics->queue_us.Add(queued_ns);
  statistics->request_us.Add(total_ns);
}

void StatisticsRecorder::AddPhases(const BatchTimes& times, uint64_t requests,
                                   VersionStatistics* statistics) {
  statistics->compute_input.Add(requests, times.gathered_ns - times.start_ns);
  statistics->compute_infer.Add(requests, times.computed_ns - times.gathered_ns);
  statistics->compute_output.Add(requests, times.end_ns - times.computed_ns);
  statistics->input_us.Add(times.gathered_ns - times.start_ns, requests);
  statistics->infer_us.Add(times.computed_ns - times.gathered_ns, requests);
  statistics->output_us.Add(times.end_ns - times.computed_ns, requests);
  statistics->compute_us.Add(times.end_ns - times.start_ns, requests);
}

void StatisticsRecorder::AddBatch(const BatchTimes& times, uint32_t rows,
                                  VersionStatistics* statistics) {
  statistics->execution_count += 1;
  BatchSizeStatistics& by_size = statistics->batches[rows];
  by_size.count += 1;
  by_size.compute_input_ns += static_cast<uint64_t>(times.gathered_ns - times.start_ns);
  by_size.compute_infer_ns += static_cast<uint64_t>(times.computed_ns - times.gathered_ns);
  by_size.compute_output_ns += static_cast<uint64_t>(times.end_ns - times.computed_ns);
}

void StatisticsRecorder::RecordRefusal(const InferRequest& request, StatusCode code,
                                       int64_t waited_ns) {
  MutexLock lock(mu_);
  if (request.is_background) return AddBackground(request, /*has_succeeded=*/false, &statistics_);
  statistics_.failures[code] += 1;
  statistics_.fail.Add(1, waited_ns);
}

VersionStatistics StatisticsRecorder::Snapshot() const {
  MutexLock lock(mu_);
  return statistics_;
}

}  // namespace penstock
