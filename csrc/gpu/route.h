// Route: where a batch's tensors come from and go to, besides the slot's pinned memory.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace penstock::gpu {

// In place of a device's number: host memory that the devices read by themselves (pinned, or registered).
inline constexpr int kHostMemory = -1;

// Bytes of an input that are copied from where they lie.
struct InputSegment {
  size_t tensor = 0;  // in the engine's inputs
  const void* from = nullptr;
  size_t size_bytes = 0;
  int device = kHostMemory;  // whose memory that is
};

// Rows of an output that are copied to where they are wanted.
struct OutputSegment {
  size_t tensor = 0;  // in the engine's outputs
  uint32_t first_row = 0, rows = 0;
  void* to = nullptr;
  size_t room_bytes = 0;  // rows that come to more are not copied
  int device = 0;         // whose memory that is; or kHostMemory
};

// Threading: thread-compatible.
// Ownership: borrows the memory, which stays as it is until the batch is over; what is `held` is kept
// until then, and on a lost device, which may still write there, to the end of the process.
struct Route {
  // All bytes of an input in their order, or none of them: they are in the slot's pinned memory then.
  std::vector<InputSegment> inputs = {};
  std::vector<OutputSegment> outputs = {};
  std::vector<size_t> unread = {};  // outputs that nobody will read in the slot's pinned memory
  std::vector<std::shared_ptr<const void>> held = {};

  void Clear() {
    inputs.clear();
    outputs.clear();
    unread.clear();
    held.clear();
  }
};

}  // namespace penstock::gpu
