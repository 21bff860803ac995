#include "cuda_kernels.h"

#include <string>
#include <utility>
#include <vector>

#include "gpu/kernels/kernels.h"

namespace penstock::gpu {
namespace {

constexpr uint32_t kMaxRows = 64;

cudaStream_t Native(Stream stream) { return reinterpret_cast<cudaStream_t>(stream); }

cudaError_t NormaliseOn(Stream stream, void* to, const void* from, uint32_t images) {
  const ImageBatch batch{.images = images, .pixels = kImageBytes / 3, .channels = 3};
  return NormaliseImages(to, Element::kFp16, static_cast<const uint8_t*>(from), batch, {},
                         Native(stream));
}

class CudaKernels final : public Kernels {
 public:
  Error Gather(void* to, const void* const* from, uint32_t rows, size_t row_bytes,
               Stream stream) override {
    return static_cast<Error>(GatherRows(to, from, rows, row_bytes, Native(stream)));
  }
  Error Normalise(void* to, const void* from, uint32_t images, Stream stream) override {
    return static_cast<Error>(NormaliseOn(stream, to, from, images));
  }
  Error CastToFp16(void* to, const void* from, size_t count, Stream stream) override {
    return static_cast<Error>(
        Cast(to, Element::kFp16, from, Element::kFp32, count, Native(stream)));
  }
};

class NormaliseEngine final : public DeviceEngine {
 public:
  class Context final : public DeviceContext {
   public:
    explicit Context(Bindings bindings) : bindings_(std::move(bindings)) {}
    Status Enqueue(Stream stream, uint32_t rows) override {
      const cudaError_t error =
          NormaliseOn(stream, bindings_.outputs[0], bindings_.inputs[0], rows);
      return error == cudaSuccess ? Status::Ok() : Internal(cudaGetErrorName(error));
    }

   private:
    const Bindings bindings_;
  };

  const std::string& name() const override { return name_; }
  const std::vector<DeviceTensor>& inputs() const override { return inputs_; }
  const std::vector<DeviceTensor>& outputs() const override { return outputs_; }
  uint32_t max_rows() const override { return kMaxRows; }
  bool takes_any_rows() const override { return true; }
  Result<std::unique_ptr<DeviceContext>> CreateContext(const Bindings& bindings, uint32_t,
                                                       Stream) override {
    return std::unique_ptr<DeviceContext>(new Context(bindings));
  }

 private:
  const std::string name_ = "normalise";
  const std::vector<DeviceTensor> inputs_ = {{"image", DataType::kUint8, kImageBytes}};
  const std::vector<DeviceTensor> outputs_ = {{"input", DataType::kFp16, 2 * kImageBytes}};
};

}  // namespace

std::unique_ptr<Kernels> MakeCudaKernels() { return std::make_unique<CudaKernels>(); }

std::unique_ptr<DeviceEngine> MakeNormaliseEngine() { return std::make_unique<NormaliseEngine>(); }

}  // namespace penstock::gpu
