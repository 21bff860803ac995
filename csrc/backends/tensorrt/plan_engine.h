// PlanEngine: a plan as lanes run it: contexts bound to a slot's memory, a profile for each batch.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/tensorrt/plan.h"
#include "backends/tensorrt/plan_layout.h"
#include "base/mutex.h"
#include "base/status.h"
#include "gpu/device_engine.h"
#include "gpu/device_health.h"
#include "gpu/gpu_handles.h"

namespace penstock::tensorrt {

// What contexts of one stream work in: only one of them runs at a time.
struct ContextScratch {
  gpu::DeviceMemory memory;
  size_t size_bytes = 0;
};

// The plan is on the device once, whatever the number of lanes. Contexts of a lane's stream share
// one piece of memory to work in, of the size that the hungriest profile needs.
//
// Threading: thread-safe.
// Ownership: owns the plan; borrows Api and health.
class PlanEngine final : public gpu::DeviceEngine {
 public:
  // Asks the plan how large its outputs get. UNIMPLEMENTED where that depends on what inputs hold.
  // `batches`: as PlanLayout::Create's.
  // Blocking: until the device is through. REQUIRES: the device is this thread's.
  static Result<std::unique_ptr<PlanEngine>> Create(gpu::Api& api, gpu::DeviceHealth& health,
                                                    std::string label, std::unique_ptr<Plan> plan,
                                                    bool batches);

  // The plan of a lost device is left to the end of the process: its destructor may wait for ever.
  ~PlanEngine() override;

  const PlanLayout& layout() const { return layout_; }

  const std::string& name() const override { return label_; }
  const std::vector<gpu::DeviceTensor>& inputs() const override { return inputs_; }
  const std::vector<gpu::DeviceTensor>& outputs() const override { return outputs_; }
  uint32_t max_rows() const override { return layout_.max_rows(); }
  bool takes_any_rows() const override { return layout_.takes_any_rows(); }
  // What reads an input on the host may mind what lies behind a batch: a division of integers by zero
  // ends the process there.
  bool row_changes_cost() const override {
    return plan_->row_changes_cost() && layout_.has_rows() && layout_.takes_any_rows() &&
           !layout_.has_open_shapes() && !has_host_inputs_;
  }
  bool can_be_captured() const { return plan_->can_be_captured() && !has_host_inputs_; }
  bool has_host_inputs() const { return has_host_inputs_; }
  std::string_view plan_engine() const { return plan_->engine(); }
  Result<gpu::Stream> ComputeStream() override;
  // A context for kAnyRows has every profile, any other the one for its rows.
  Result<std::unique_ptr<gpu::DeviceContext>> CreateContext(const gpu::Bindings& bindings,
                                                            uint32_t rows,
                                                            gpu::Stream stream) override;

 private:
  friend class PlanContexts;

  PlanEngine(gpu::Api& api, gpu::DeviceHealth& health, std::string label,
             std::unique_ptr<Plan> plan, PlanLayout layout);

  Status Measure();
  Status MeasureInputs();
  Status MeasureProfile(size_t profile, gpu::Stream stream);
  Status AddOutput(size_t output, const Shape& shape, uint32_t rows);
  Result<std::shared_ptr<ContextScratch>> ScratchOf(gpu::Stream stream) EXCLUDES(mu_);

  // Sets the inputs' shapes, in the layout's order.
  Status SetShapes(PlanContext& context, std::span<const Shape> shapes) const;
  Result<std::vector<Shape>> OutputShapes(PlanContext& context) const;
  // Bytes of a tensor of that shape. INTERNAL where it has no end, or is none.
  Result<size_t> BytesOf(const gpu::DeviceTensor& tensor, const Shape& shape) const;

  // Constant after Create.
  gpu::Api& api_;
  gpu::DeviceHealth& health_;
  const std::string label_;
  std::unique_ptr<Plan> plan_;
  const PlanLayout layout_;
  std::vector<gpu::DeviceTensor> inputs_, outputs_;
  size_t scratch_bytes_ = 0;
  bool has_host_inputs_ = false;

  Mutex mu_;
  // Guarded by mu_. Contexts own it.
  std::map<gpu::Stream, std::weak_ptr<ContextScratch>> scratch_ GUARDED_BY(mu_);
};

}  // namespace penstock::tensorrt
