// What a transport is told when it is made, and what it counts.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace penstock {

struct TransportOptions {
  int io_threads = 0;  // 0 = from the core count

  // Limits. A message over its limit ends its call, a connection over its own is not taken.
  size_t max_message_bytes = size_t{256} << 20;
  size_t max_connections = 4096;           // 0 = no bound
  uint32_t max_concurrent_streams = 1024;  // calls at a time on one connection
  size_t max_inflight_per_stream = 64;     // requests of one ModelStreamInfer under way
  size_t max_header_bytes = 16384;         // of one call, names and values
  size_t max_buffered_bytes = 0;           // of requests held by all connections; 0 = no bound

  // Compression of messages. Level 0 = responses are not compressed, else 1..3.
  bool compression = true;
  int response_compression_level = 0;

  bool access_log = false;  // a line of the log for each call

  // Connections; 0 = never, for the last three.
  int64_t keepalive_time_ns = int64_t{7200} * 1'000'000'000;
  int64_t keepalive_timeout_ns = int64_t{20} * 1'000'000'000;
  int64_t min_ping_interval_ns = int64_t{5} * 1'000'000'000;
  int64_t max_connection_age_ns = 0;
  int64_t max_connection_age_grace_ns = 0;  // for its calls, once a connection is of age
  int64_t max_connection_idle_ns = 0;
};

// Threading: each counter by itself.
struct TransportCounters {
  std::atomic<uint64_t> accepted_connections{0};
  std::atomic<uint64_t> refused_connections{0};  // over the limit, or no descriptor was left
  std::atomic<uint64_t> open_connections{0};
  std::atomic<uint64_t> calls{0};
  std::atomic<uint64_t> active_calls{0};
  std::atomic<uint64_t> bytes_read{0};
  std::atomic<uint64_t> bytes_written{0};
  std::atomic<uint64_t> buffered_bytes{0};  // of requests being received or not yet answered
};

}  // namespace penstock
