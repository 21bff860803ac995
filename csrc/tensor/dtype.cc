#include "tensor/dtype.h"

#include <array>

namespace penstock {
namespace {

struct Entry {
  std::string_view name;
  size_t size_bytes;
};

// Indexed by DataType.
constexpr std::array<Entry, 15> kTypes = {{{"INVALID", 0},
                                           {"BOOL", 1},
                                           {"UINT8", 1},
                                           {"UINT16", 2},
                                           {"UINT32", 4},
                                           {"UINT64", 8},
                                           {"INT8", 1},
                                           {"INT16", 2},
                                           {"INT32", 4},
                                           {"INT64", 8},
                                           {"FP16", 2},
                                           {"BF16", 2},
                                           {"FP32", 4},
                                           {"FP64", 8},
                                           {"BYTES", 0}}};

}  // namespace

std::string_view DataTypeName(DataType dtype) { return kTypes[static_cast<size_t>(dtype)].name; }

DataType ParseDataType(std::string_view name) {
  for (size_t i = 1; i < kTypes.size(); ++i) {
    if (kTypes[i].name == name) return static_cast<DataType>(i);
  }
  return DataType::kInvalid;
}

size_t DataTypeSize(DataType dtype) { return kTypes[static_cast<size_t>(dtype)].size_bytes; }

}  // namespace penstock
