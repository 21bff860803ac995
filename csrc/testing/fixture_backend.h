// FixtureBackend: models for tests whose behaviour is said in words: echo, add, wait, fail, throw,
// lie.
//
// A model is a text file of `key = value` lines (`#` starts a comment); ModelConfig.parameters of
// the same names override it, and with a `kind` among them the file may be absent. Keys:
//
//   kind              what the model does:
//     identity          OUTPUT0 = INPUT0
//     simple            OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1, all INT32 [-1,16]
//     fail              Execute returns INTERNAL "<message>"
//     throw             Execute throws std::runtime_error("<message>")
//     fail_load         Load returns INTERNAL "<message>"
//     wrong_shape       identity whose output claims one row too many; its bytes are the input's
//     wrong_bytes       identity whose output lacks its last byte
//     block_until_file  identity that first waits until `file` exists
//     repeat_int32      decoupled, see repeat_model.h
//     square_int32      likewise
//   datatype          of the identities' tensors: FP32 (default), any protocol name
//   dims              of the identities' tensors with the batch dimension: "-1,-1" (default)
//   execute_delay_ms  Execute takes at least this long (any kind); 0 by default
//   fail_rows         a batch of this many rows fails with INTERNAL "<message>" (any kind); 0 = none
//   message           of fail, throw, fail_load, fail_rows
//   file              of block_until_file
//   timeout_ms        after which block_until_file gives up with INTERNAL; 60000 by default

#pragma once

#include <memory>

#include "backends/backend.h"

namespace penstock {

// The backend, for tests that register it; the plug-in libpenstock_fixture.so holds the same.
// Threading: thread-safe, as Backend.
// Blocking: Execute, for as long as the model's keys say.
std::unique_ptr<Backend> MakeFixtureBackend();

}  // namespace penstock
