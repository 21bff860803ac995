// Our declaration of the engine's table: that each index is what we say it is. One walk calls every
// entry for what it does; a call through a wrong index would not give that. Where ORT's own header
// is installed the indices are compared with it at compile time.

#include "backends/onnxruntime/ort_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <set>
#include <string>

#include "backend_under_test.h"
#include "backends/onnxruntime/ort_device_session.h"
#include "backends/onnxruntime/ort_library.h"
#include "onnx_writer.h"

#if __has_include(<onnxruntime_c_api.h>)
#include <onnxruntime_c_api.h>
#define PENSTOCK_ORT_COMPARE(name, slot, ...) \
  static_assert(offsetof(::OrtApi, name) == (slot) * sizeof(void*), "index of " #name);
PENSTOCK_ORT_ENTRIES(PENSTOCK_ORT_COMPARE)
PENSTOCK_ORT_GPU_ENTRIES(PENSTOCK_ORT_COMPARE)
static_assert(sizeof(::OrtApiBase) == sizeof(penstock::ort::ApiBase));
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 == 16 &&
              ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL == 9);
static_assert(ONNX_TYPE_OPTIONAL == 6 && ORT_ENABLE_ALL == 99 && ORT_INVALID_GRAPH == 10);
#endif

namespace penstock::ort {
namespace {

// Calls an entry and notes that it was called.
#define CALL(name, ...) (called_.insert(#name), api_.name(__VA_ARGS__))
#define OK(name, ...) ASSERT_EQ(TextOf(CALL(name, __VA_ARGS__)), "")

// In place of options, which a library without the provider does not make.
struct OptionsRoom {
  template <typename Options>
  Options* As() {
    return reinterpret_cast<Options*>(words.data());
  }
  std::array<const void*, 512> words = {};
};

class OrtApiTest : public testing::Test {
 protected:
  static const OrtLibrary& Library() {
    static const auto& library = *OrtLibrary::Open({PENSTOCK_ONNXRUNTIME_LIBRARY, 0}).value();
    return library;
  }

  std::string TextOf(ErrorStatus* error) { return Library().TakeMessage(error); }

  // x [n,2] + w -> y, with w [2] an initialiser that may be overridden; strings s -> t.
  void WriteModel() {
    OnnxWriter model;
    model.Input("x", DataType::kFp32, {"n", "2"});
    model.Input("w", DataType::kFp32, {"2"});
    model.Input("s", DataType::kBytes, {"2"});
    model.Initializer("w", DataType::kFp32, {2}, std::string("\0\0\x80\x3f\0\0\0\x40", 8));  // 1, 2
    model.Node("Add", {"x", "w"}, {"y"});
    model.Node("Identity", {"s"}, {"t"});
    model.Output("y", DataType::kFp32, {"n", "2"});
    model.Output("t", DataType::kBytes, {"2"});
    model.Write(path_);
  }

  void MakeEnvironment() {
    ThreadingOptions* threading = nullptr;
    OK(CreateThreadingOptions, &threading);
    OK(SetGlobalIntraOpNumThreads, threading, 1);
    OK(SetGlobalInterOpNumThreads, threading, 1);
    OK(SetGlobalSpinControl, threading, 0);
    const auto log = [](void*, LogSeverity, const char*, const char*, const char*, const char*) {};
    OK(CreateEnvWithCustomLoggerAndGlobalThreadPools, log, nullptr, LogSeverity::kWarning, "test",
       threading, &env_);
    CALL(ReleaseThreadingOptions, threading);
    OK(GetAllocatorWithDefaultOptions, &allocator_);
    OK(CreateCpuMemoryInfo, AllocatorType::kDevice, MemoryType::kDefault, &memory_);
  }

  void MakeSession() {
    SessionOptions* options = nullptr;
    OK(CreateSessionOptions, &options);
    OK(SetSessionLogId, options, "m/1");
    OK(SetSessionExecutionMode, options, ExecutionMode::kSequential);
    OK(SetSessionGraphOptimizationLevel, options, GraphLevel::kAll);
    OK(SetIntraOpNumThreads, options, 1);
    OK(SetInterOpNumThreads, options, 1);
    OK(DisableMemPattern, options);
    OK(DisableCpuMemArena, options);
    OK(DisablePerSessionThreads, options);
    OK(AddSessionConfigEntry, options, "session.set_denormal_as_zero", "1");
    char weights[] = {1, 2};
    const char* location = "no location of the model";
    char* bytes = weights;
    const size_t size = sizeof(weights);
    OK(AddExternalInitializersFromFilesInMemory, options, &location, &bytes, &size, 1);
    OK(CreateSession, env_, path_.c_str(), options, &session_);
    CALL(ReleaseSessionOptions, options);
  }

  void ReadNames() {
    size_t inputs = 0, outputs = 0, overridable = 0;
    OK(SessionGetInputCount, session_, &inputs);
    OK(SessionGetOutputCount, session_, &outputs);
    OK(SessionGetOverridableInitializerCount, session_, &overridable);
    EXPECT_EQ(inputs, 2u);
    EXPECT_EQ(outputs, 2u);
    EXPECT_EQ(overridable, 1u);
    char* name = nullptr;
    OK(SessionGetInputName, session_, 1, allocator_, &name);
    ExpectName(name, "s");
    OK(SessionGetOutputName, session_, 0, allocator_, &name);
    ExpectName(name, "y");
    OK(SessionGetOverridableInitializerName, session_, 0, allocator_, &name);
    ExpectName(name, "w");
  }

  void ExpectName(char* name, const std::string& expected) {
    EXPECT_EQ(name, expected);
    OK(AllocatorFree, allocator_, name);
  }

  void ReadTypes() {
    TypeInfo* type = nullptr;
    OK(SessionGetInputTypeInfo, session_, 0, &type);
    ExpectType(type, ElementType::kFloat, {-1, 2}, "n");
    OK(SessionGetOutputTypeInfo, session_, 1, &type);
    ExpectType(type, ElementType::kString, {2}, "");
    OK(SessionGetOverridableInitializerTypeInfo, session_, 0, &type);
    ExpectType(type, ElementType::kFloat, {2}, "");
  }

  void ExpectType(TypeInfo* type, ElementType element, const std::vector<int64_t>& dims,
                  const std::string& first_symbol) {
    ValueKind kind = ValueKind::kUnknown;
    OK(GetOnnxTypeFromTypeInfo, type, &kind);
    EXPECT_EQ(kind, ValueKind::kTensor);
    const TensorInfo* tensor = nullptr;
    OK(CastTypeInfoToTensorInfo, type, &tensor);
    ExpectTensor(tensor, element, dims);
    std::vector<const char*> symbols(dims.size());
    OK(GetSymbolicDimensions, tensor, symbols.data(), symbols.size());
    EXPECT_EQ(std::string(symbols[0]), first_symbol);
    CALL(ReleaseTypeInfo, type);
  }

  void ExpectTensor(const TensorInfo* tensor, ElementType element,
                    const std::vector<int64_t>& dims) {
    ElementType got = ElementType::kUndefined;
    OK(GetTensorElementType, tensor, &got);
    EXPECT_EQ(got, element);
    size_t rank = 0;
    OK(GetDimensionsCount, tensor, &rank);
    std::vector<int64_t> got_dims(rank);
    OK(GetDimensions, tensor, got_dims.data(), rank);
    EXPECT_EQ(got_dims, dims);
  }

  Value* MakeStrings() {
    Value* strings = nullptr;
    const int64_t shape[] = {2};
    EXPECT_EQ(
        TextOf(CALL(CreateTensorAsOrtValue, allocator_, shape, 1, ElementType::kString, &strings)),
        "");
    for (size_t i = 0; i < 2; ++i) {
      char* text = nullptr;
      EXPECT_EQ(TextOf(CALL(GetResizedStringTensorElementBuffer, strings, i, 3, &text)), "");
      std::memcpy(text, i == 0 ? "a\0b" : "xyz", 3);
    }
    return strings;
  }

  void RunModel() {
    float x[] = {10, 20, 30, 40};
    const int64_t shape[] = {2, 2};
    Value* values[2] = {};
    OK(CreateTensorWithDataAsOrtValue, memory_, x, sizeof(x), shape, 2, ElementType::kFloat,
       &values[0]);
    values[1] = MakeStrings();
    RunOptions* options = nullptr;
    OK(CreateRunOptions, &options);
    OK(RunOptionsSetRunLogSeverityLevel, options, LogSeverity::kFatal);
    OK(AddRunConfigEntry, options, "memory.enable_memory_arena_shrinkage", "");
    const char* inputs[] = {"x", "s"};
    const char* outputs[] = {"y", "t"};
    Value* results[2] = {};
    OK(Run, session_, options, inputs, values, 2, outputs, 2, results);
    CALL(ReleaseRunOptions, options);
    ExpectResults(results[0], results[1]);
    for (Value* value : {values[0], values[1], results[0], results[1]}) CALL(ReleaseValue, value);
  }

  void ExpectResults(Value* y, Value* t) {
    TensorInfo* info = nullptr;
    OK(GetTensorTypeAndShape, y, &info);
    ExpectTensor(info, ElementType::kFloat, {2, 2});
    CALL(ReleaseTensorTypeAndShapeInfo, info);
    void* data = nullptr;
    OK(GetTensorMutableData, y, &data);
    EXPECT_EQ(std::vector<float>(static_cast<float*>(data), static_cast<float*>(data) + 4),
              (std::vector<float>{11, 22, 31, 42}));
    size_t length = 0;
    OK(GetStringTensorDataLength, t, &length);
    std::string text(length, '?');
    size_t offsets[2] = {};
    OK(GetStringTensorContent, t, text.data(), text.size(), offsets, 2);
    EXPECT_EQ(text, std::string("a\0bxyz", 6));
    EXPECT_EQ(offsets[1], 3u);
  }

  // The same again, by a binding, into memory of ours.
  void RunBound() {
    float x[] = {10, 20, 30, 40};
    float y[4] = {};
    const int64_t shape[] = {2, 2};
    Value* values[3] = {};
    OK(CreateTensorWithDataAsOrtValue, memory_, x, sizeof(x), shape, 2, ElementType::kFloat,
       &values[0]);
    OK(CreateTensorWithDataAsOrtValue, memory_, y, sizeof(y), shape, 2, ElementType::kFloat,
       &values[1]);
    values[2] = MakeStrings();
    IoBinding* binding = nullptr;
    OK(CreateIoBinding, session_, &binding);
    OK(BindInput, binding, "x", values[0]);
    OK(BindInput, binding, "s", values[2]);
    OK(BindOutput, binding, "y", values[1]);
    OK(RunWithBinding, session_, nullptr, binding);
    EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{11, 22, 31, 42}));
    // What is bound in the memory where the engine wants it is read there by each run, and an output
    // stays bound.
    x[0] = 5;
    OK(RunWithBinding, session_, nullptr, binding);
    EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{6, 22, 31, 42}));
    CALL(ReleaseIoBinding, binding);
    for (Value* value : values) CALL(ReleaseValue, value);
  }

  // On a CPU all inputs are in its memory; the one that has a default is none of them.
  void AskWhereInputsAre() {
    const auto on_host = ReadHostInputs(Library(), session_, "m");
    ASSERT_TRUE(on_host.ok()) << on_host.status().ToString();
    EXPECT_EQ(*on_host, (std::vector<bool>{true, true}));
    const char* name = nullptr;
    OK(MemoryInfoGetName, memory_, &name);
    EXPECT_STREQ(name, "Cpu");
  }

  // What is on a GPU is not there; the entries are, and each says so of its own provider.
  void AskForGpus() {
    char** names = nullptr;
    int count = 0;
    OK(GetAvailableProviders, &names, &count);
    const std::set<std::string> providers(names, names + count);
    EXPECT_TRUE(providers.contains("CPUExecutionProvider"));
    OK(ReleaseAvailableProviders, names, count);
    MemoryInfo* memory = nullptr;
    OK(CreateMemoryInfo, "Cuda", AllocatorType::kDevice, 1, MemoryType::kDefault, &memory);
    CALL(ReleaseMemoryInfo, memory);
    SessionOptions* options = nullptr;
    OK(CreateSessionOptions, &options);
    const char* key = "device_id";
    const char* value = "0";
    OptionsRoom room;
    CudaOptions* cuda = nullptr;
    ExpectNone("CUDA", CALL(CreateCUDAProviderOptions, &cuda));
    cuda = room.As<CudaOptions>();
    ExpectNone("CUDA", CALL(UpdateCUDAProviderOptions, cuda, &key, &value, 1));
    ExpectNone("CUDA", CALL(UpdateCUDAProviderOptionsWithValue, cuda, key, &key));
    // It looks at the options before it looks for the provider: at what no other entry reads.
    EXPECT_NE(TextOf(CALL(SessionOptionsAppendExecutionProvider_CUDA_V2, options, cuda)), "");
    CALL(ReleaseCUDAProviderOptions, nullptr);
    TensorRtOptions* tensorrt = nullptr;
    ExpectNone("TensorRT", CALL(CreateTensorRTProviderOptions, &tensorrt));
    tensorrt = room.As<TensorRtOptions>();
    ExpectNone("TensorRT", CALL(UpdateTensorRTProviderOptions, tensorrt, &key, &value, 1));
    ExpectNone("TensorRT", CALL(UpdateTensorRTProviderOptionsWithValue, tensorrt, key, &key));
    EXPECT_THAT(TextOf(CALL(SessionOptionsAppendExecutionProvider_TensorRT_V2, options, tensorrt)),
                testing::HasSubstr("AppendExecutionProvider_TensorRT"));
    CALL(ReleaseTensorRTProviderOptions, nullptr);
    CALL(ReleaseSessionOptions, options);
  }

  void ExpectNone(const char* provider, ErrorStatus* error) {
    EXPECT_THAT(TextOf(error),
                testing::AllOf(testing::HasSubstr(provider), testing::HasSubstr("not enabled")));
  }

  void FailToOpen() {
    SessionOptions* options = nullptr;
    OK(CreateSessionOptions, &options);
    Session* session = nullptr;
    ErrorStatus* error = CALL(CreateSession, env_, "/nonexistent/model.onnx", options, &session);
    ASSERT_NE(error, nullptr);
    EXPECT_EQ(CALL(GetErrorCode, error), ErrorCode::kNoSuchFile);
    EXPECT_THAT(CALL(GetErrorMessage, error), testing::HasSubstr("/nonexistent/model.onnx"));
    CALL(ReleaseStatus, error);
    CALL(ReleaseSessionOptions, options);
  }

  void ReleaseAll() {
    CALL(ReleaseSession, session_);
    CALL(ReleaseMemoryInfo, memory_);
    CALL(ReleaseEnv, env_);
  }

  const Api& api_ = Library().api();
  TempDir directory_;
  const std::string path_ = directory_.Path("model.onnx");
  std::set<std::string> called_;
  Env* env_ = nullptr;
  Allocator* allocator_ = nullptr;  // the engine's own, never released
  MemoryInfo* memory_ = nullptr;
  Session* session_ = nullptr;
};

TEST_F(OrtApiTest, EveryEntry_DoesWhatItsNameSays) {
  WriteModel();
  ASSERT_NO_FATAL_FAILURE(MakeEnvironment());
  ASSERT_NO_FATAL_FAILURE(MakeSession());
  ASSERT_NO_FATAL_FAILURE(ReadNames());
  ASSERT_NO_FATAL_FAILURE(ReadTypes());
  ASSERT_NO_FATAL_FAILURE(RunModel());
  ASSERT_NO_FATAL_FAILURE(RunBound());
  ASSERT_NO_FATAL_FAILURE(AskWhereInputsAre());
  ASSERT_NO_FATAL_FAILURE(AskForGpus());
  ASSERT_NO_FATAL_FAILURE(FailToOpen());
  ASSERT_NO_FATAL_FAILURE(ReleaseAll());
  std::set<std::string> declared;
#define PENSTOCK_ORT_NAME(name, ...) declared.insert(#name);
  PENSTOCK_ORT_ENTRIES(PENSTOCK_ORT_NAME)
  EXPECT_EQ(called_, declared);
}

TEST_F(OrtApiTest, NoTwoEntries_ShareAnIndex) {
  std::set<size_t> slots;
  size_t entries = 0;
#define PENSTOCK_ORT_COUNT(name, slot, ...) \
  slots.insert(slot);                       \
  ++entries;
  PENSTOCK_ORT_ENTRIES(PENSTOCK_ORT_COUNT)
  PENSTOCK_ORT_GPU_ENTRIES(PENSTOCK_ORT_COUNT)
  EXPECT_EQ(slots.size(), entries);
}

TEST(OrtLibraryTest, EngineThatDoesNotSayWhereInputsAre_RunsNoGpus) {
  const ApiBase old{[](uint32_t) noexcept -> Api::Table { return nullptr; },
                    []() noexcept { return "1.22.1"; }};
  const auto api = ReadGpuApi(old);
  EXPECT_EQ(api.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(api.status().ToString(),
              testing::HasSubstr("ONNX Runtime 1.22.1 does not offer version 23 of its C "
                                 "interface: 1.23 or later is needed for KIND_GPU"));
}

TEST(OrtLibraryTest, SecondOpen_GivesTheSameLibrary) {
  const auto first = OrtLibrary::Open({PENSTOCK_ONNXRUNTIME_LIBRARY, 0});
  const auto second = OrtLibrary::Open({PENSTOCK_ONNXRUNTIME_LIBRARY, 0});
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(*first, *second);
}

TEST(OrtLibraryTest, DirectoryOfTheWheel_IsEnough) {
  const std::string file = PENSTOCK_ONNXRUNTIME_LIBRARY;
  const auto library = OrtLibrary::Open({file.substr(0, file.rfind('/')), 0});
  EXPECT_TRUE(library.ok()) << library.status().ToString();
}

TEST(OrtLibraryTest, OtherSettingsInTheSameProcess_AreRefused) {
  ASSERT_TRUE(OrtLibrary::Open({PENSTOCK_ONNXRUNTIME_LIBRARY, 0}).ok());
  const auto library = OrtLibrary::Open({PENSTOCK_ONNXRUNTIME_LIBRARY, 999});
  ASSERT_FALSE(library.ok());
  EXPECT_THAT(std::string(library.status().message()), testing::HasSubstr("other settings"));
}

TEST(OrtLibraryTest, MissingLibrary_FailsThePreconditionWithoutItsPath) {
  const TempDir empty;
  for (const std::string& library : {empty.path(), empty.Path("libonnxruntime.so.9")}) {
    const auto opened = OrtLibrary::Open({library, 0});
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.status().code(), StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(opened.status().message()),
                testing::Not(testing::HasSubstr(empty.path())));
  }
}

}  // namespace
}  // namespace penstock::ort
