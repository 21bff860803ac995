// The index of a TensorFlow checkpoint (a SavedModel's variables/variables.index).
//
// Checked before the engine reads it, which looks at none of the file's checksums: a byte that a
// disk or a copy has changed can send it beyond the end of its memory, and the process with it.

#pragma once

#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace penstock::openvino {

// CRC-32C (Castagnoli; RFC 3720, appendix B.4) of `data`.
uint32_t Crc32c(std::string_view data);

// Whether `file` is a whole table of strings as LevelDB defines it (doc/table_format.md; so does
// TensorFlow's tsl/lib/io/table), each block of which has the checksum that its writer gave it.
// InvalidArgument says what is wrong, beginning in the middle of a sentence about the file.
// Cost: each byte of the file is read once or twice.
Status CheckCheckpointIndex(std::string_view file);

}  // namespace penstock::openvino
