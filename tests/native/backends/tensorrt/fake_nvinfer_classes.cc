// TensorRT's library as the adapter drives it, by the classes of the headers that it is compiled with:
// as far as a plan is read and described. FAKE_NVINFER "no cuda": CUDA does not start, which it says and
// answers as the vendor's does. A plan is a text of words:
//
//   plan         one of input x and output y, [-1,4], with two profiles; else it is refused
//   vectorised   y is laid out in another way in the second profile
//   aliased      y has to lie where x does
//   version      refused: it is of another version

#include <NvInferRuntime.h>

#include <cstdlib>
#include <cstring>
#include <string>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace {

using namespace nvinfer1;  // NOLINT(google-build-using-namespace): it is all of them

class FakeEngine final : public ICudaEngine, public apiv::VCudaEngine {
 public:
  explicit FakeEngine(std::string words) : words_(std::move(words)) { mImpl = this; }

  int32_t getNbIOTensors() const noexcept override { return 2; }
  char const* getIOTensorName(int32_t index) const noexcept override {
    return index == 0 ? "x" : "y";
  }
  TensorIOMode getTensorIOMode(char const* name) const noexcept override {
    return *name == 'x' ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  Dims getTensorShape(char const*) const noexcept override { return {2, {-1, 4}}; }
  DataType getTensorDataType(char const*) const noexcept override { return DataType::kFLOAT; }
  TensorLocation getTensorLocation(char const*) const noexcept override {
    return TensorLocation::kDEVICE;
  }
  bool isShapeInferenceIO(char const*) const noexcept override { return false; }
  int32_t getNbOptimizationProfiles() const noexcept override { return 2; }
  Dims getProfileShape(char const*, int32_t, OptProfileSelector which) const noexcept override {
    return {2, {which == OptProfileSelector::kMIN ? 1 : 8, 4}};
  }
  TensorFormat getTensorFormat(char const*) const noexcept override {
    return TensorFormat::kLINEAR;  // the first profile's
  }
  TensorFormat getTensorFormatV2(char const* name, int32_t profile) const noexcept override {
    const bool is_other = Has("vectorised") && *name == 'y' && profile == 1;
    return is_other ? TensorFormat::kCHW4 : TensorFormat::kLINEAR;
  }
  char const* getAliasedInputTensor(char const* name) const noexcept override {
    return Has("aliased") && *name == 'y' ? "x" : nullptr;
  }

  // Nobody's.
  ICudaEngine* getPImpl() noexcept override { return this; }
  int32_t getNbLayers() const noexcept override { return 0; }
  IHostMemory* serialize() const noexcept override { return nullptr; }
  IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy) noexcept override {
    return nullptr;
  }
  bool isRefittable() const noexcept override { return false; }
  char const* getName() const noexcept override { return ""; }
  EngineCapability getEngineCapability() const noexcept override {
    return EngineCapability::kSTANDARD;
  }
  void setErrorRecorder(IErrorRecorder*) noexcept override {}
  IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
  TacticSources getTacticSources() const noexcept override { return 0; }
  ProfilingVerbosity getProfilingVerbosity() const noexcept override {
    return ProfilingVerbosity::kNONE;
  }
  IEngineInspector* createEngineInspector() const noexcept override { return nullptr; }
  int32_t getTensorBytesPerComponent(char const*) const noexcept override { return 4; }
  int32_t getTensorComponentsPerElement(char const*) const noexcept override { return 1; }
  char const* getTensorFormatDesc(char const*) const noexcept override { return ""; }
  int32_t getTensorVectorizedDim(char const*) const noexcept override { return -1; }
  HardwareCompatibilityLevel getHardwareCompatibilityLevel() const noexcept override { return {}; }
  int32_t getNbAuxStreams() const noexcept override { return 0; }
  int32_t getTensorBytesPerComponentV2(char const*, int32_t) const noexcept override { return 4; }
  int32_t getTensorComponentsPerElementV2(char const*, int32_t) const noexcept override {
    return 1;
  }
  char const* getTensorFormatDescV2(char const*, int32_t) const noexcept override { return ""; }
  int32_t getTensorVectorizedDimV2(char const*, int32_t) const noexcept override { return -1; }
  ISerializationConfig* createSerializationConfig() noexcept override { return nullptr; }
  IHostMemory* serializeWithConfig(ISerializationConfig&) const noexcept override {
    return nullptr;
  }
  IRefitter* createRefitter(ILogger&) noexcept override { return nullptr; }
  int64_t getStreamableWeightsSize() const noexcept override { return 0; }
  bool isDebugTensor(char const*) const noexcept override { return false; }
  bool setWeightStreamingBudgetV2(int64_t) noexcept override { return false; }
  int64_t getWeightStreamingBudgetV2() const noexcept override { return 0; }
  int64_t getWeightStreamingAutomaticBudget() const noexcept override { return 0; }
  int64_t getWeightStreamingScratchMemorySize() const noexcept override { return 0; }
  int64_t getDeviceMemorySizeV2() const noexcept override { return 0; }
  int64_t getDeviceMemorySizeForProfileV2(int32_t) const noexcept override { return 0; }
  int64_t const* getProfileTensorValuesV2(char const*, int32_t,
                                          OptProfileSelector) const noexcept override {
    return nullptr;
  }
  IExecutionContext* createExecutionContextWithRuntimeConfig(IRuntimeConfig*) noexcept override {
    return nullptr;
  }
  IRuntimeConfig* createRuntimeConfig() noexcept override { return nullptr; }
  int64_t getEngineStat(EngineStat) const noexcept override { return 0; }
#if NV_TENSORRT_MAJOR < 11
  IExecutionContext* createExecutionContextWithoutDeviceMemory() noexcept override {
    return nullptr;
  }
  size_t getDeviceMemorySize() const noexcept override { return 0; }
  int32_t const* getProfileTensorValues(char const*, int32_t,
                                        OptProfileSelector) const noexcept override {
    return nullptr;
  }
  bool hasImplicitBatchDimension() const noexcept override { return false; }
  size_t getDeviceMemorySizeForProfile(int32_t) const noexcept override { return 0; }
  bool setWeightStreamingBudget(int64_t) noexcept override { return false; }
  int64_t getWeightStreamingBudget() const noexcept override { return 0; }
  int64_t getMinimumWeightStreamingBudget() const noexcept override { return 0; }
#endif

 private:
  bool Has(char const* word) const { return words_.find(word) != std::string::npos; }

  const std::string words_;
};

class FakeRuntime final : public IRuntime, public apiv::VRuntime {
 public:
  explicit FakeRuntime(ILogger& logger) : logger_(logger) { mImpl = this; }

  ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override {
    const std::string words(static_cast<char const*>(blob), size);
    if (words.find("version") != std::string::npos) {
      recorder_->reportError(ErrorCode::kFAILED_INITIALIZATION, "Version tag does not match.");
    } else if (words.rfind("plan", 0) == 0) {
      return new FakeEngine(words);
    } else {
      logger_.log(ILogger::Severity::kERROR, "the cause");
      logger_.log(ILogger::Severity::kERROR, "what it led to");
    }
    return nullptr;
  }
  void setErrorRecorder(IErrorRecorder* recorder) noexcept override { recorder_ = recorder; }

  // Nobody's.
  IRuntime* getPImpl() noexcept override { return this; }
  void setDLACore(int32_t) noexcept override {}
  int32_t getDLACore() const noexcept override { return 0; }
  int32_t getNbDLACores() const noexcept override { return 0; }
  void setGpuAllocator(IGpuAllocator*) noexcept override {}
  IErrorRecorder* getErrorRecorder() const noexcept override { return recorder_; }
  ILogger* getLogger() const noexcept override { return &logger_; }
  bool setMaxThreads(int32_t) noexcept override { return true; }
  int32_t getMaxThreads() const noexcept override { return 1; }
  void setTemporaryDirectory(char const*) noexcept override {}
  char const* getTemporaryDirectory() const noexcept override { return ""; }
  void setTempfileControlFlags(TempfileControlFlags) noexcept override {}
  TempfileControlFlags getTempfileControlFlags() const noexcept override { return 0; }
  IPluginRegistry& getPluginRegistry() noexcept override { std::abort(); }
  void setPluginRegistryParent(IPluginRegistry*) noexcept override {}
  IRuntime* loadRuntime(char const*) noexcept override { return nullptr; }
  void setEngineHostCodeAllowed(bool) noexcept override {}
  bool getEngineHostCodeAllowed() const noexcept override { return false; }
  ICudaEngine* deserializeCudaEngineV2(IStreamReaderV2&) noexcept override { return nullptr; }
#if NV_TENSORRT_MAJOR < 11
  ICudaEngine* deserializeCudaEngine(IStreamReader&) noexcept override { return nullptr; }
#endif

 private:
  ILogger& logger_;
  IErrorRecorder* recorder_ = nullptr;
};

}  // namespace

extern "C" {

int getInferLibMajorVersion() { return NV_TENSORRT_MAJOR; }
int getInferLibMinorVersion() { return NV_TENSORRT_MINOR; }
int getInferLibPatchVersion() { return NV_TENSORRT_PATCH; }
int getInferLibBuildVersion() { return NV_TENSORRT_BUILD; }

void* createInferRuntime_INTERNAL(void* logger, int32_t) {
  auto& words = *static_cast<ILogger*>(logger);
  const char* what = std::getenv("FAKE_NVINFER");
  if (what == nullptr || std::strcmp(what, "no cuda") != 0) return new FakeRuntime(words);
  words.log(ILogger::Severity::kERROR, "CUDA initialization failure with error: 46 In check");
  words.log(ILogger::Severity::kERROR, "Cuda Runtime (In catchCudaError)");
  return reinterpret_cast<void*>(0x228);
}
}
