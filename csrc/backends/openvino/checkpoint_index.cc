#include "backends/openvino/checkpoint_index.h"

#include <array>
#include <cstddef>
#include <cstring>
#include <optional>

#include "base/strcat.h"

namespace penstock::openvino {
namespace {

constexpr size_t kFooterBytes = 48;
constexpr size_t kMagicBytes = 8;
constexpr uint64_t kMagic = 0xdb4775248b80fb57;
constexpr size_t kTrailerBytes = 5;  // how the block is compressed, and its checksum
constexpr size_t kChecksumBytes = 4;

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  constexpr uint32_t kReversedPolynomial = 0x82f63b78;
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) {
      value = (value >> 1) ^ ((value & 1) != 0 ? kReversedPolynomial : 0);
    }
    table[i] = value;
  }
  return table;
}

template <typename T>
T Fixed(std::string_view bytes) {  // little endian, as this machine is
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

// A varint from the begin of `bytes`, which it takes off; nothing where there is none.
std::optional<uint64_t> TakeVarint(std::string_view* bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes->size() && i < 10; ++i) {
    const auto byte = static_cast<uint8_t>((*bytes)[i]);
    value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      bytes->remove_prefix(i + 1);
      return value;
    }
  }
  return std::nullopt;
}

// What a checksum is stored as (LevelDB's util/crc32c.h: no file holds a plain sum of itself).
uint32_t Masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8; }

// The block that the handle at the begin of `bytes` points to; takes the handle off.
Result<std::string_view> TakeBlock(std::string_view file, std::string_view* bytes) {
  const std::optional<uint64_t> offset = TakeVarint(bytes);
  const std::optional<uint64_t> size = TakeVarint(bytes);
  if (!offset || !size) return InvalidArgument("has no place where one of its blocks should be");
  const size_t end = file.size() - kFooterBytes;
  if (*offset > end || *size > end - *offset || end - *offset - *size < kTrailerBytes) {
    return InvalidArgument(
        StrCat("has a block of ", *size, " bytes at ", *offset, ", beyond its end"));
  }
  const std::string_view block = file.substr(*offset, *size);
  const std::string_view summed = file.substr(*offset, *size + 1);
  const auto stored = Fixed<uint32_t>(file.substr(*offset + *size + 1, kChecksumBytes));
  if (Masked(Crc32c(summed)) != stored) {
    return InvalidArgument(StrCat("is damaged: the block of ", *size, " bytes at ", *offset,
                                  " has not the checksum it was written with"));
  }
  return block;
}

// The entries' values are the handles of the data blocks. Keys share prefixes; here they do not
// matter. The entries end where the restart points begin, whose count is the block's last word.
Status CheckDataBlocks(std::string_view file, std::string_view index) {
  const size_t words = index.size() / sizeof(uint32_t);
  const uint32_t restarts =
      words == 0 ? 0 : Fixed<uint32_t>(index.substr(index.size() - sizeof(uint32_t)));
  if (words == 0 || restarts > words - 1) return InvalidArgument("has an index without an end");
  std::string_view entries =
      index.substr(0, index.size() - (restarts + size_t{1}) * sizeof(uint32_t));
  while (!entries.empty()) {
    const std::optional<uint64_t> shared = TakeVarint(&entries);
    const std::optional<uint64_t> own = TakeVarint(&entries);
    const std::optional<uint64_t> size = TakeVarint(&entries);
    if (!shared || !own || !size || *own > entries.size() || *size > entries.size() - *own) {
      return InvalidArgument("has an entry beyond the end of its index");
    }
    std::string_view handle = entries.substr(*own, *size);
    PENSTOCK_RETURN_IF_ERROR(TakeBlock(file, &handle).status());
    entries.remove_prefix(*own + *size);
  }
  return Status::Ok();
}

}  // namespace

uint32_t Crc32c(std::string_view data) {
  static constexpr std::array<uint32_t, 256> kTable = MakeCrcTable();
  uint32_t crc = ~uint32_t{0};
  for (const char each : data) {
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<uint8_t>(each)) & 0xff];
  }
  return ~crc;
}

Status CheckCheckpointIndex(std::string_view file) {
  if (file.size() < kFooterBytes) {
    return InvalidArgument(StrCat("has ", file.size(), " bytes, fewer than its footer of ",
                                  kFooterBytes, ": it is cut short"));
  }
  std::string_view footer = file.substr(file.size() - kFooterBytes);
  if (Fixed<uint64_t>(footer.substr(kFooterBytes - kMagicBytes)) != kMagic) {
    return InvalidArgument("is no index of a checkpoint, or is cut short: it does not end as one");
  }
  footer.remove_suffix(kMagicBytes);
  PENSTOCK_RETURN_IF_ERROR(TakeBlock(file, &footer).status());  // of meta information
  const Result<std::string_view> index = TakeBlock(file, &footer);
  PENSTOCK_RETURN_IF_ERROR(index.status());
  return CheckDataBlocks(file, *index);
}

}  // namespace penstock::openvino
