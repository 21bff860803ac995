#include "engine/classification.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <type_traits>

#include "base/strcat.h"
#include "memory/host_pool.h"
#include "tensor/float16.h"

namespace penstock {
namespace {

template <typename T>
T Load(const uint8_t* data, size_t index) {
  T value;
  std::memcpy(&value, data + index * sizeof(T), sizeof(T));
  return value;
}

// A value to compare and to print. Exact for every type: a long double holds 64-bit integers.
struct Score {
  long double value;
  bool is_integer;

  std::string Text() const {
    if (!is_integer) return std::to_string(static_cast<double>(value));
    return value < 0 ? std::to_string(static_cast<int64_t>(value))
                     : std::to_string(static_cast<uint64_t>(value));
  }
};

template <typename T>
Score MakeScore(T value) {
  return {static_cast<long double>(value), std::is_integral_v<T>};
}

Score ScoreAt(const TensorView& values, size_t index) {
  const uint8_t* data = values.data.data();
  switch (values.dtype) {
    case DataType::kBool:
    case DataType::kUint8:
      return MakeScore(Load<uint8_t>(data, index));
    case DataType::kUint16:
      return MakeScore(Load<uint16_t>(data, index));
    case DataType::kUint32:
      return MakeScore(Load<uint32_t>(data, index));
    case DataType::kUint64:
      return MakeScore(Load<uint64_t>(data, index));
    case DataType::kInt8:
      return MakeScore(Load<int8_t>(data, index));
    case DataType::kInt16:
      return MakeScore(Load<int16_t>(data, index));
    case DataType::kInt32:
      return MakeScore(Load<int32_t>(data, index));
    case DataType::kInt64:
      return MakeScore(Load<int64_t>(data, index));
    case DataType::kFp16:
      return MakeScore(Fp16ToFloat(Load<uint16_t>(data, index)));
    case DataType::kBf16:
      return MakeScore(Bf16ToFloat(Load<uint16_t>(data, index)));
    case DataType::kFp32:
      return MakeScore(Load<float>(data, index));
    case DataType::kFp64:
      return MakeScore(Load<double>(data, index));
    case DataType::kBytes:
    case DataType::kInvalid:
      break;
  }
  return MakeScore(0);
}

bool IsGreater(const Score& a, const Score& b) {
  if (std::isnan(a.value)) return false;
  return std::isnan(b.value) || a.value > b.value;
}

// Appends the `k` top classes among `scores` in wire layout.
void AppendTop(const std::vector<Score>& scores, size_t k, const std::vector<std::string>& labels,
               std::string* out) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto top = order.begin() + static_cast<std::ptrdiff_t>(k);
  std::partial_sort(order.begin(), top, order.end(), [&](size_t a, size_t b) {
    if (IsGreater(scores[a], scores[b])) return true;
    return !IsGreater(scores[b], scores[a]) && a < b;
  });
  for (size_t i = 0; i < k; ++i) {
    std::string text = StrCat(scores[order[i]].Text(), ":", order[i]);
    if (order[i] < labels.size()) text.append(":").append(labels[order[i]]);
    const auto length = static_cast<uint32_t>(text.size());
    out->append(reinterpret_cast<const char*>(&length), sizeof(length)).append(text);
  }
}

}  // namespace

TensorView Classify(const TensorView& values, bool has_batch_dimension, uint32_t classes,
                    const std::vector<std::string>& labels, Buffer* out) {
  const auto count = static_cast<size_t>(values.shape.NumElements().value_or(0));
  const size_t rows = has_batch_dimension ? static_cast<size_t>(values.shape[0]) : 1;
  const size_t width = rows == 0 ? 0 : count / rows;
  const size_t k = std::min<size_t>(classes, width);
  std::string text;
  for (size_t row = 0; row < rows; ++row) {
    std::vector<Score> scores;
    scores.reserve(width);
    for (size_t i = 0; i < width; ++i) scores.push_back(ScoreAt(values, row * width + i));
    AppendTop(scores, k, labels, &text);
  }
  *out = HostPool::Shared().Allocate(text.size());
  if (!text.empty()) std::memcpy(out->data(), text.data(), text.size());
  Shape shape{static_cast<int64_t>(k)};
  if (has_batch_dimension) shape = shape.WithFirst(static_cast<int64_t>(rows));
  return {values.name, DataType::kBytes, shape, {out->data(), out->size()}};
}

}  // namespace penstock
