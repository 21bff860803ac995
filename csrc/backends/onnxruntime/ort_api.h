// The part of ONNX Runtime's C interface that this backend uses, declared by us.
//
// The engine's Python wheel ships the library without its headers. `OrtApi` is a table of functions
// that is only ever appended to, so an index, once published, stays what it is; the engine is asked
// for the version of the table in which our last entry came in (kApiVersion) and answers null when
// it is older. PENSTOCK_ORT_ENTRIES is the one list: name, index in the table, result, arguments.
// The members of `Api`, the test that calls each of them and the comparison with ORT's own header
// (where there is one) are all made from it.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace penstock::ort {

// ORT_API_VERSION 18, i.e. ONNX Runtime 1.18: AddExternalInitializersFromFilesInMemory.
inline constexpr uint32_t kApiVersion = 18;
// What GPUs need besides, of ONNX Runtime 1.23: PENSTOCK_ORT_GPU_ENTRIES.
inline constexpr uint32_t kGpuApiVersion = 23;

// The engine's opaque objects.
struct Allocator;
struct CudaOptions;  // ORT's OrtCUDAProviderOptionsV2
struct Env;
struct ErrorStatus;  // ORT's OrtStatus: null = success
struct IoBinding;
struct MemoryInfo;
struct RunOptions;
struct Session;
struct SessionOptions;
struct TensorRtOptions;  // ORT's OrtTensorRTProviderOptionsV2
struct TensorInfo;       // ORT's OrtTensorTypeAndShapeInfo
struct ThreadingOptions;
struct TypeInfo;
struct Value;

// Enumerations of the C interface, with its numbers.
enum class LogSeverity : int { kVerbose = 0, kInfo = 1, kWarning = 2, kError = 3, kFatal = 4 };
enum class ErrorCode : int {
  kFail = 1,
  kInvalidArgument = 2,
  kNoSuchFile = 3,
  kNoModel = 4,
  kEngineError = 5,
  kRuntimeException = 6,
  kInvalidProtobuf = 7,
  kModelLoaded = 8,
  kNotImplemented = 9,
  kInvalidGraph = 10,
};
enum class ExecutionMode : int { kSequential = 0, kParallel = 1 };
enum class GraphLevel : int { kDisabled = 0, kBasic = 1, kExtended = 2, kAll = 99 };
enum class AllocatorType : int { kDevice = 0, kArena = 1 };
enum class MemoryType : int { kDefault = 0 };
enum class ValueKind : int {
  kUnknown = 0,
  kTensor = 1,
  kSequence = 2,
  kMap = 3,
  kOpaque = 4,
  kSparseTensor = 5,
  kOptional = 6,
};
enum class ElementType : int {
  kUndefined = 0,
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kString = 8,
  kBool = 9,
  kFloat16 = 10,
  kDouble = 11,
  kUint32 = 12,
  kUint64 = 13,
  kBfloat16 = 16,
};

using LogFunction = void (*)(void* context, LogSeverity severity, const char* category,
                             const char* log_id, const char* code_location, const char* message);

// clang-format off
#define PENSTOCK_ORT_ENTRIES(ENTRY)                                                               \
  ENTRY(GetErrorCode, 1, ErrorCode, const ErrorStatus*)                                           \
  ENTRY(GetErrorMessage, 2, const char*, const ErrorStatus*)                                      \
  ENTRY(CreateSession, 7, ErrorStatus*, const Env*, const char*, const SessionOptions*, Session**)\
  ENTRY(Run, 9, ErrorStatus*, Session*, const RunOptions*, const char* const*, const Value* const*,\
        size_t, const char* const*, size_t, Value**)                                              \
  ENTRY(CreateSessionOptions, 10, ErrorStatus*, SessionOptions**)                                 \
  ENTRY(SetSessionExecutionMode, 13, ErrorStatus*, SessionOptions*, ExecutionMode)                \
  ENTRY(DisableMemPattern, 17, ErrorStatus*, SessionOptions*)                                     \
  ENTRY(DisableCpuMemArena, 19, ErrorStatus*, SessionOptions*)                                    \
  ENTRY(SetSessionLogId, 20, ErrorStatus*, SessionOptions*, const char*)                          \
  ENTRY(SetSessionGraphOptimizationLevel, 23, ErrorStatus*, SessionOptions*, GraphLevel)          \
  ENTRY(SetIntraOpNumThreads, 24, ErrorStatus*, SessionOptions*, int)                             \
  ENTRY(SetInterOpNumThreads, 25, ErrorStatus*, SessionOptions*, int)                             \
  ENTRY(SessionGetInputCount, 30, ErrorStatus*, const Session*, size_t*)                          \
  ENTRY(SessionGetOutputCount, 31, ErrorStatus*, const Session*, size_t*)                         \
  ENTRY(SessionGetOverridableInitializerCount, 32, ErrorStatus*, const Session*, size_t*)         \
  ENTRY(SessionGetInputTypeInfo, 33, ErrorStatus*, const Session*, size_t, TypeInfo**)            \
  ENTRY(SessionGetOutputTypeInfo, 34, ErrorStatus*, const Session*, size_t, TypeInfo**)           \
  ENTRY(SessionGetOverridableInitializerTypeInfo, 35, ErrorStatus*, const Session*, size_t,       \
        TypeInfo**)                                                                               \
  ENTRY(SessionGetInputName, 36, ErrorStatus*, const Session*, size_t, Allocator*, char**)        \
  ENTRY(SessionGetOutputName, 37, ErrorStatus*, const Session*, size_t, Allocator*, char**)       \
  ENTRY(SessionGetOverridableInitializerName, 38, ErrorStatus*, const Session*, size_t, Allocator*,\
        char**)                                                                                   \
  ENTRY(CreateRunOptions, 39, ErrorStatus*, RunOptions**)                                         \
  ENTRY(RunOptionsSetRunLogSeverityLevel, 41, ErrorStatus*, RunOptions*, LogSeverity)             \
  ENTRY(CreateTensorAsOrtValue, 48, ErrorStatus*, Allocator*, const int64_t*, size_t, ElementType,\
        Value**)                                                                                  \
  ENTRY(CreateTensorWithDataAsOrtValue, 49, ErrorStatus*, const MemoryInfo*, void*, size_t,       \
        const int64_t*, size_t, ElementType, Value**)                                             \
  ENTRY(GetTensorMutableData, 51, ErrorStatus*, Value*, void**)                                   \
  ENTRY(GetStringTensorDataLength, 53, ErrorStatus*, const Value*, size_t*)                       \
  ENTRY(GetStringTensorContent, 54, ErrorStatus*, const Value*, void*, size_t, size_t*, size_t)   \
  ENTRY(CastTypeInfoToTensorInfo, 55, ErrorStatus*, const TypeInfo*, const TensorInfo**)          \
  ENTRY(GetOnnxTypeFromTypeInfo, 56, ErrorStatus*, const TypeInfo*, ValueKind*)                   \
  ENTRY(GetTensorElementType, 60, ErrorStatus*, const TensorInfo*, ElementType*)                  \
  ENTRY(GetDimensionsCount, 61, ErrorStatus*, const TensorInfo*, size_t*)                         \
  ENTRY(GetDimensions, 62, ErrorStatus*, const TensorInfo*, int64_t*, size_t)                     \
  ENTRY(GetSymbolicDimensions, 63, ErrorStatus*, const TensorInfo*, const char**, size_t)         \
  ENTRY(GetTensorTypeAndShape, 65, ErrorStatus*, const Value*, TensorInfo**)                      \
  ENTRY(CreateMemoryInfo, 68, ErrorStatus*, const char*, AllocatorType, int, MemoryType,          \
        MemoryInfo**)                                                                             \
  ENTRY(CreateCpuMemoryInfo, 69, ErrorStatus*, AllocatorType, MemoryType, MemoryInfo**)           \
  ENTRY(MemoryInfoGetName, 71, ErrorStatus*, const MemoryInfo*, const char**)                     \
  ENTRY(AllocatorFree, 76, ErrorStatus*, Allocator*, void*)                                       \
  ENTRY(GetAllocatorWithDefaultOptions, 78, ErrorStatus*, Allocator**)                            \
  ENTRY(ReleaseEnv, 92, void, Env*)                                                               \
  ENTRY(ReleaseStatus, 93, void, ErrorStatus*)                                                    \
  ENTRY(ReleaseMemoryInfo, 94, void, MemoryInfo*)                                                 \
  ENTRY(ReleaseSession, 95, void, Session*)                                                       \
  ENTRY(ReleaseValue, 96, void, Value*)                                                           \
  ENTRY(ReleaseRunOptions, 97, void, RunOptions*)                                                 \
  ENTRY(ReleaseTypeInfo, 98, void, TypeInfo*)                                                     \
  ENTRY(ReleaseTensorTypeAndShapeInfo, 99, void, TensorInfo*)                                     \
  ENTRY(ReleaseSessionOptions, 100, void, SessionOptions*)                                        \
  ENTRY(DisablePerSessionThreads, 120, ErrorStatus*, SessionOptions*)                             \
  ENTRY(CreateThreadingOptions, 121, ErrorStatus*, ThreadingOptions**)                            \
  ENTRY(ReleaseThreadingOptions, 122, void, ThreadingOptions*)                                    \
  ENTRY(GetAvailableProviders, 125, ErrorStatus*, char***, int*)                                  \
  ENTRY(ReleaseAvailableProviders, 126, ErrorStatus*, char**, int)                                \
  ENTRY(AddSessionConfigEntry, 130, ErrorStatus*, SessionOptions*, const char*, const char*)      \
  ENTRY(RunWithBinding, 133, ErrorStatus*, Session*, const RunOptions*, const IoBinding*)         \
  ENTRY(CreateIoBinding, 134, ErrorStatus*, Session*, IoBinding**)                                \
  ENTRY(ReleaseIoBinding, 135, void, IoBinding*)                                                  \
  ENTRY(BindInput, 136, ErrorStatus*, IoBinding*, const char*, const Value*)                      \
  ENTRY(BindOutput, 137, ErrorStatus*, IoBinding*, const char*, const Value*)                     \
  ENTRY(SetGlobalIntraOpNumThreads, 147, ErrorStatus*, ThreadingOptions*, int)                    \
  ENTRY(SetGlobalInterOpNumThreads, 148, ErrorStatus*, ThreadingOptions*, int)                    \
  ENTRY(SetGlobalSpinControl, 149, ErrorStatus*, ThreadingOptions*, int)                          \
  ENTRY(CreateEnvWithCustomLoggerAndGlobalThreadPools, 151, ErrorStatus*, LogFunction, void*,     \
        LogSeverity, const char*, const ThreadingOptions*, Env**)                                 \
  ENTRY(AddRunConfigEntry, 165, ErrorStatus*, RunOptions*, const char*, const char*)              \
  ENTRY(SessionOptionsAppendExecutionProvider_TensorRT_V2, 170, ErrorStatus*, SessionOptions*,    \
        const TensorRtOptions*)                                                                   \
  ENTRY(CreateTensorRTProviderOptions, 171, ErrorStatus*, TensorRtOptions**)                      \
  ENTRY(UpdateTensorRTProviderOptions, 172, ErrorStatus*, TensorRtOptions*, const char* const*,   \
        const char* const*, size_t)                                                               \
  ENTRY(ReleaseTensorRTProviderOptions, 174, void, TensorRtOptions*)                              \
  ENTRY(SessionOptionsAppendExecutionProvider_CUDA_V2, 204, ErrorStatus*, SessionOptions*,        \
        const CudaOptions*)                                                                       \
  ENTRY(CreateCUDAProviderOptions, 205, ErrorStatus*, CudaOptions**)                              \
  ENTRY(UpdateCUDAProviderOptions, 206, ErrorStatus*, CudaOptions*, const char* const*,           \
        const char* const*, size_t)                                                               \
  ENTRY(ReleaseCUDAProviderOptions, 208, void, CudaOptions*)                                      \
  ENTRY(GetResizedStringTensorElementBuffer, 252, ErrorStatus*, Value*, size_t, size_t, char**)   \
  ENTRY(UpdateTensorRTProviderOptionsWithValue, 261, ErrorStatus*, TensorRtOptions*, const char*, \
        void*)                                                                                    \
  ENTRY(UpdateCUDAProviderOptionsWithValue, 263, ErrorStatus*, CudaOptions*, const char*, void*)  \
  ENTRY(AddExternalInitializersFromFilesInMemory, 279, ErrorStatus*, SessionOptions*,             \
        const char* const*, char* const*, const size_t*, size_t)

#define PENSTOCK_ORT_GPU_ENTRIES(ENTRY)                                                           \
  ENTRY(SessionGetMemoryInfoForInputs, 380, ErrorStatus*, const Session*, const MemoryInfo**, size_t)
// clang-format on

// Where each entry stands in the engine's table.
enum class Slot : size_t {
#define PENSTOCK_ORT_SLOT(name, slot, ...) k##name = slot,
  PENSTOCK_ORT_ENTRIES(PENSTOCK_ORT_SLOT) PENSTOCK_ORT_GPU_ENTRIES(PENSTOCK_ORT_SLOT)
#undef PENSTOCK_ORT_SLOT
};

// The entries we use, typed. Nothing of the engine throws.
// Threading: thread-safe, immutable. Ownership: borrows the code of a library that is never closed.
struct Api {
  using Table = const void* const*;
  explicit Api(Table table) {
#define PENSTOCK_ORT_FILL(name, slot, ...) \
  name = reinterpret_cast<decltype(name)>(const_cast<void*>(table[slot]));
    PENSTOCK_ORT_ENTRIES(PENSTOCK_ORT_FILL)
  }

#define PENSTOCK_ORT_MEMBER(name, slot, result, ...) result (*name)(__VA_ARGS__) noexcept = nullptr;
  PENSTOCK_ORT_ENTRIES(PENSTOCK_ORT_MEMBER)
};

// The same for what GPUs need besides. REQUIRES: the table is of version kGpuApiVersion.
struct GpuApi {
  explicit GpuApi(Api::Table table){PENSTOCK_ORT_GPU_ENTRIES(PENSTOCK_ORT_FILL)}

  PENSTOCK_ORT_GPU_ENTRIES(PENSTOCK_ORT_MEMBER)
};
#undef PENSTOCK_ORT_FILL
#undef PENSTOCK_ORT_MEMBER

// The library's only symbol, `OrtGetApiBase`, returns one of these.
struct ApiBase {
  Api::Table (*GetApi)(uint32_t version) noexcept;
  const char* (*GetVersionString)() noexcept;
};

// Owns one of the engine's objects.
template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*) noexcept>;

}  // namespace penstock::ort
