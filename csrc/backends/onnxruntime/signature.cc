#include "backends/onnxruntime/signature.h"

#include <array>
#include <utility>

#include "base/strcat.h"

namespace penstock::ort {
namespace {

constexpr std::array<std::pair<ElementType, DataType>, 14> kTypes = {{
    {ElementType::kBool, DataType::kBool},
    {ElementType::kUint8, DataType::kUint8},
    {ElementType::kUint16, DataType::kUint16},
    {ElementType::kUint32, DataType::kUint32},
    {ElementType::kUint64, DataType::kUint64},
    {ElementType::kInt8, DataType::kInt8},
    {ElementType::kInt16, DataType::kInt16},
    {ElementType::kInt32, DataType::kInt32},
    {ElementType::kInt64, DataType::kInt64},
    {ElementType::kFloat16, DataType::kFp16},
    {ElementType::kBfloat16, DataType::kBf16},
    {ElementType::kFloat, DataType::kFp32},
    {ElementType::kDouble, DataType::kFp64},
    {ElementType::kString, DataType::kBytes},
}};

// A TensorSpec and the names of its dimensions ("" where a dimension has none).
struct NamedSpec {
  TensorSpec spec;
  std::vector<std::string> symbols;
};

// One of the three lists a session has: its getters.
struct Getters {
  std::string_view kind;  // "input", "output", for messages
  decltype(Api::SessionGetInputCount) count;
  decltype(Api::SessionGetInputName) name;
  decltype(Api::SessionGetInputTypeInfo) type;
};

class Reader {
 public:
  Reader(const OrtLibrary& library, const Session* session, const std::string& label)
      : library_(library), api_(library.api()), session_(session), label_(label) {}

  Result<std::vector<NamedSpec>> ReadAll(const Getters& getters) const {
    size_t count = 0;
    PENSTOCK_RETURN_IF_ERROR(Check(getters.count(session_, &count)));
    std::vector<NamedSpec> specs;
    for (size_t i = 0; i < count; ++i) {
      PENSTOCK_ASSIGN_OR_RETURN(NamedSpec spec, ReadOne(getters, i));
      specs.push_back(std::move(spec));
    }
    return specs;
  }

 private:
  Status Check(ErrorStatus* error) const { return library_.ToStatus(error, label_); }

  Result<NamedSpec> ReadOne(const Getters& getters, size_t index) const {
    NamedSpec result;
    char* name = nullptr;
    PENSTOCK_RETURN_IF_ERROR(Check(getters.name(session_, index, library_.allocator(), &name)));
    result.spec.name = name;
    PENSTOCK_RETURN_IF_ERROR(Check(api_.AllocatorFree(library_.allocator(), name)));
    const std::string subject = StrCat(label_, ": ", getters.kind, " '", result.spec.name, "'");
    TypeInfo* raw = nullptr;
    PENSTOCK_RETURN_IF_ERROR(Check(getters.type(session_, index, &raw)));
    const Owned<TypeInfo> type(raw, api_.ReleaseTypeInfo);
    PENSTOCK_RETURN_IF_ERROR(CheckIsTensor(raw, subject));
    const TensorInfo* tensor = nullptr;  // part of `type`
    PENSTOCK_RETURN_IF_ERROR(Check(api_.CastTypeInfoToTensorInfo(raw, &tensor)));
    PENSTOCK_RETURN_IF_ERROR(ReadTensor(tensor, subject, &result));
    return result;
  }

  Status CheckIsTensor(const TypeInfo* type, const std::string& subject) const {
    ValueKind kind = ValueKind::kUnknown;
    PENSTOCK_RETURN_IF_ERROR(Check(api_.GetOnnxTypeFromTypeInfo(type, &kind)));
    switch (kind) {
      case ValueKind::kTensor:
        return Status::Ok();
      case ValueKind::kSequence:
      case ValueKind::kMap:
        return Unimplemented(
            StrCat(subject, " is a ", kind == ValueKind::kMap ? "map" : "sequence",
                   ", which the inference protocol cannot carry. Where it is a "
                   "classifier's probabilities, export the model with zipmap=False: they "
                   "are then a tensor"));
      default:
        return Unimplemented(subject +
                             " is not a dense tensor, which is all the inference protocol carries");
    }
  }

  Status ReadTensor(const TensorInfo* tensor, const std::string& subject, NamedSpec* result) const {
    ElementType element = ElementType::kUndefined;
    PENSTOCK_RETURN_IF_ERROR(Check(api_.GetTensorElementType(tensor, &element)));
    result->spec.dtype = FromElementType(element);
    if (result->spec.dtype == DataType::kInvalid) {
      return Unimplemented(StrCat(subject, " has ONNX element type ", static_cast<int>(element),
                                  ", which the inference protocol does not have"));
    }
    size_t rank = 0;
    PENSTOCK_RETURN_IF_ERROR(Check(api_.GetDimensionsCount(tensor, &rank)));
    if (rank > kMaxRank) {
      return Unimplemented(
          StrCat(subject, " has ", rank, " dimensions, at most ", kMaxRank, " are supported"));
    }
    std::array<int64_t, kMaxRank> dims;
    std::array<const char*, kMaxRank> symbols{};
    PENSTOCK_RETURN_IF_ERROR(Check(api_.GetDimensions(tensor, dims.data(), rank)));
    PENSTOCK_RETURN_IF_ERROR(Check(api_.GetSymbolicDimensions(tensor, symbols.data(), rank)));
    for (size_t i = 0; i < rank; ++i) {
      result->spec.dims.Append(dims[i] < 0 ? -1 : dims[i]);
      result->symbols.emplace_back(symbols[i] == nullptr ? "" : symbols[i]);
    }
    return Status::Ok();
  }

  const OrtLibrary& library_;
  const Api& api_;
  const Session* const session_;
  const std::string& label_;
};

OutputDim FromInput(size_t input, size_t axis) {
  OutputDim dim;
  dim.source = OutputDim::Source::kInput;
  dim.input = input;
  dim.axis = axis;
  return dim;
}

// A named dimension is the input dimension of that name. A first dimension without a name
// (scikit-learn exports) is taken for the batch: the first dimension of the first input, where that
// varies too. Both are what the file says, not what the model must do: an instance checks it by
// running (OrtInstance).
OutputDim PlanDim(const NamedSpec& output, size_t axis, const std::vector<NamedSpec>& inputs) {
  OutputDim dim;
  if (output.spec.dims[axis] >= 0) {
    dim.source = OutputDim::Source::kFixed;
    dim.size = output.spec.dims[axis];
    return dim;
  }
  const std::string& symbol = output.symbols[axis];
  for (size_t i = 0; i < inputs.size() && !symbol.empty(); ++i) {
    for (size_t j = 0; j < inputs[i].symbols.size(); ++j) {
      if (inputs[i].symbols[j] == symbol) return FromInput(i, j);
    }
  }
  const bool has_batch =
      !inputs.empty() && !inputs[0].spec.dims.empty() && inputs[0].spec.dims[0] < 0;
  return axis == 0 && has_batch ? FromInput(0, 0) : dim;
}

OutputPlan PlanOutput(const NamedSpec& output, const std::vector<NamedSpec>& inputs,
                      bool is_rank_known) {
  OutputPlan plan;
  plan.is_predictable = is_rank_known && output.spec.dtype != DataType::kBytes;
  for (size_t axis = 0; axis < output.spec.dims.rank(); ++axis) {
    plan.dims.push_back(PlanDim(output, axis, inputs));
    plan.is_predictable &= plan.dims.back().source != OutputDim::Source::kUnknown;
  }
  return plan;
}

}  // namespace

DataType FromElementType(ElementType type) {
  for (const auto& [engine, protocol] : kTypes) {
    if (engine == type) return protocol;
  }
  return DataType::kInvalid;
}

ElementType ToElementType(DataType dtype) {
  for (const auto& [engine, protocol] : kTypes) {
    if (protocol == dtype) return engine;
  }
  return ElementType::kUndefined;
}

Result<SessionSignature> ReadSessionSignature(const OrtLibrary& library, const Session* session,
                                              const ModelFileFacts& facts,
                                              const std::string& label) {
  const Api& api = library.api();
  const Reader reader(library, session, label);
  PENSTOCK_ASSIGN_OR_RETURN(const auto required,
                            reader.ReadAll({"input", api.SessionGetInputCount,
                                            api.SessionGetInputName, api.SessionGetInputTypeInfo}));
  // Initialisers that are also listed as graph inputs: inputs with a default.
  PENSTOCK_ASSIGN_OR_RETURN(auto optional,
                            reader.ReadAll({"input", api.SessionGetOverridableInitializerCount,
                                            api.SessionGetOverridableInitializerName,
                                            api.SessionGetOverridableInitializerTypeInfo}));
  PENSTOCK_ASSIGN_OR_RETURN(
      const auto outputs, reader.ReadAll({"output", api.SessionGetOutputCount,
                                          api.SessionGetOutputName, api.SessionGetOutputTypeInfo}));
  SessionSignature result;
  for (const NamedSpec& input : required) {
    // The engine reports a shape the file does not give as rank 0.
    if (input.spec.dims.empty() && facts.rank_unknown.contains(input.spec.name)) {
      return Unimplemented(
          StrCat(label, ": input '", input.spec.name,
                 "' has no shape in the model file: export the model with one (its "
                 "dimensions may be symbolic)"));
    }
    result.signature.inputs.push_back(input.spec);
  }
  for (NamedSpec& input : optional) {
    input.spec.is_optional = true;
    result.signature.inputs.push_back(input.spec);
  }
  for (const NamedSpec& output : outputs) {
    const bool is_rank_known =
        !output.spec.dims.empty() || !facts.rank_unknown.contains(output.spec.name);
    OutputPlan plan = PlanOutput(output, required, is_rank_known);
    // An input that is an output as well comes back as it is, whatever memory was offered for it.
    for (const TensorSpec& input : result.signature.inputs) {
      plan.is_predictable &= input.name != output.spec.name;
    }
    result.output_plans.push_back(std::move(plan));
    result.signature.outputs.push_back(output.spec);
  }
  return result;
}

}  // namespace penstock::ort
