// DeviceUse: how a model uses a device. Part of the backends' interface (backend.h).

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace penstock {

// A batch size that a model has a graph for on a device, and what ran in it since the load.
struct GraphUse {
  uint32_t rows = 0;         // of the graph: the bucket
  uint64_t runs = 0;         // batches
  uint64_t padded_rows = 0;  // computed and thrown away
};

// What a model holds of a device that is not the CPU, and how its batches ran there. Plain numbers
// and strings: it is also told from one process to another.
struct DeviceUse {
  std::string kind = "GPU";
  int64_t id = 0;                   // as the process that loaded the model counts them
  std::string name;                 // "NVIDIA H200"
  std::string uuid;                 // "GPU-5a1c...", as nvidia-smi writes it
  uint64_t memory_bytes = 0;        // by how much the device's free memory shrank with the load
  uint64_t graph_bytes = 0;         // what graphs and their contexts hold of that
  uint64_t graph_budget_bytes = 0;  // and may hold
  std::vector<GraphUse> graphs;     // ascending by rows
  uint64_t uncaptured_runs = 0;     // batches without a graph
  uint64_t uncaptured_padded_rows = 0;
  // Of an engine that pays for it: batches that it ran with another number of rows than the one before.
  uint64_t row_changes = 0;
  uint64_t busy_ns = 0;  // in which at least one batch of the model was being computed there
};

}  // namespace penstock
