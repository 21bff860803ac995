#include "engine/output_cut.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "base/strcat.h"
#include "engine/classification.h"

namespace penstock {
namespace {

bool Fits(const Shape& spec, std::span<const int64_t> dims) {
  return std::equal(spec.begin(), spec.end(), dims.begin(), dims.end(),
                    [](int64_t expected, int64_t got) { return expected < 0 || expected == got; });
}

std::string OutputOf(const VersionSpec& version, const OutputSpec& spec) {
  return StrCat(version.DisplayName(), " output '", spec.name, "'");
}

// False: the length prefixes do not fill the bytes.
bool MeasureBytes(std::span<const uint8_t> data, int64_t per_row, uint32_t rows,
                  std::vector<size_t>* row_ends) {
  size_t offset = 0;
  for (uint32_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < per_row; ++i) {
      uint32_t length = 0;
      if (data.size() - offset < sizeof(length)) return false;
      std::memcpy(&length, data.data() + offset, sizeof(length));
      offset += sizeof(length);
      if (data.size() - offset < length) return false;
      offset += length;
    }
    row_ends->push_back(offset);
  }
  return offset == data.size();
}

Status MeasureRows(const VersionSpec& version, const OutputSpec& spec, const BatchOutput& output,
                   uint32_t rows, OutputCut* cut) {
  const std::optional<int64_t> count = output.shape.NumElements();
  const auto data = output.data.span();
  cut->row_ends.clear();
  if (count.has_value() && output.dtype != DataType::kBytes) {
    const uint64_t size_bytes = static_cast<uint64_t>(*count) * DataTypeSize(output.dtype);
    cut->row_bytes = size_bytes / rows;
    if (data.size() == (cut->has_no_data ? 0 : size_bytes)) return Status::Ok();
  }
  if (count.has_value() && output.dtype == DataType::kBytes &&
      MeasureBytes(data, *count / rows, rows, &cut->row_ends)) {
    return Status::Ok();
  }
  return Internal(StrCat(OutputOf(version, spec), " came with ", data.size(),
                         " bytes, which do not fit its shape ", output.shape.ToString()));
}

TensorView CutRows(const VersionSpec& version, const OutputSpec& spec, const OutputCut& cut,
                   uint32_t first_row, uint32_t rows) {
  const auto data = cut.output->data.span();
  size_t begin = first_row * cut.row_bytes;
  size_t end = begin + rows * cut.row_bytes;
  if (spec.dtype == DataType::kBytes) {
    begin = first_row == 0 ? 0 : cut.row_ends[first_row - 1];
    end = cut.row_ends[first_row + rows - 1];
  }
  const Shape shape = version.has_batch_dimension() ? cut.dims.WithFirst(rows) : cut.dims;
  if (cut.has_no_data) return {spec.name, spec.dtype, shape, {}};
  return {spec.name, spec.dtype, shape, data.subspan(begin, end - begin)};
}

Status CheckRoom(const VersionSpec& version, const SharedTensor& shared, std::string_view output,
                 uint64_t size_bytes) {
  if (size_bytes <= shared.size_bytes) return Status::Ok();
  return Internal(StrCat("shared memory size specified with the request for output '", output,
                         "' (", shared.size_bytes, " bytes) should be at least ", size_bytes,
                         " bytes to hold the results of model '", version.model_name, "'"));
}

Status StoreShared(const VersionSpec& version, const SharedTensor& shared,
                   const TensorView& output) {
  PENSTOCK_RETURN_IF_ERROR(CheckRoom(version, shared, output.name, output.data.size()));
  Status status = shared.region->Write(shared.offset, output.data);
  if (status.ok()) return status;
  return {status.code(), StrCat("output '", output.name, "' of model '", version.model_name,
                                "': ", status.message())};
}

}  // namespace

Shape Reshaped(const Shape& from, std::span<const int64_t> actual, const Shape& to) {
  Shape result;
  size_t axis = 0;
  for (const int64_t dim : to) {
    if (dim >= 0) {
      result.Append(dim);
      continue;
    }
    while (axis < from.rank() && from[axis] >= 0) ++axis;
    result.Append(axis < from.rank() ? actual[axis] : dim);
    ++axis;
  }
  return result;
}

Status CutOutput(const VersionSpec& version, const OutputSpec& spec, const BatchOutput& output,
                 uint32_t rows, OutputCut* cut) {
  if (output.dtype != spec.dtype) {
    return Internal(StrCat(OutputOf(version, spec), " came as ", DataTypeName(output.dtype),
                           ", expected ", DataTypeName(spec.dtype)));
  }
  const bool batched = version.has_batch_dimension();
  if (batched && (output.shape.empty() || output.shape[0] != rows)) {
    return Internal(StrCat(OutputOf(version, spec), " came with shape ", output.shape.ToString(),
                           ", expected a first dimension of ", rows));
  }
  const auto dims = output.shape.dims().subspan(batched ? 1 : 0);
  const Shape& expected = spec.reshape ? *spec.reshape : spec.dims;
  if (!Fits(expected, dims)) {
    return Internal(StrCat(OutputOf(version, spec), " came with shape ", output.shape.ToString(),
                           ", expected ",
                           (batched ? expected.WithFirst(rows) : expected).ToString()));
  }
  cut->output = &output;
  cut->dims = spec.reshape ? Reshaped(*spec.reshape, dims, spec.dims) : Shape(dims);
  return MeasureRows(version, spec, output, rows, cut);
}

// NOLINTNEXTLINE(readability-function-size): what all outputs of a request share comes first
Status AppendOutput(const VersionSpec& version, const OutputCut& cut, uint32_t first_row,
                    const InferRequest& request, size_t index, const CutOutputs& to) {
  const WantedOutput& wanted = request.wanted[index];
  const OutputSpec& spec = version.outputs[wanted.index];
  TensorView view = CutRows(version, spec, cut, first_row, request.rows);
  if (const SharedTensor* shared = request.SharedOutput(index); shared != nullptr) {
    if (shared->is_on_device) {  // it is there, or too large for it
      const uint64_t size_bytes = request.rows * uint64_t{cut.row_bytes};
      PENSTOCK_RETURN_IF_ERROR(CheckRoom(version, *shared, view.name, size_bytes));
    } else if (!request.is_cancelled()) {
      // A caller that has gone may use its memory for something else by now.
      PENSTOCK_RETURN_IF_ERROR(StoreShared(version, *shared, view));
    }
    view.data = {};
  } else if (wanted.classification > 0) {
    Buffer classes;
    view =
        Classify(view, version.has_batch_dimension(), wanted.classification, spec.labels, &classes);
    to.owned.push_back(std::move(classes));
  }
  to.views.push_back(view);
  return Status::Ok();
}

}  // namespace penstock
