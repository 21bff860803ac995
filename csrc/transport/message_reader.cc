#include "transport/message_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/strcat.h"

namespace penstock {
namespace {

// The budget is charged in steps, as bytes come: a length prefix alone holds no memory.
constexpr size_t kChargeStep = 64 << 10;

}  // namespace

Status ByteBudgetExceeded(const ByteBudget& budget) {
  return ResourceExhausted(
      StrCat("the server holds requests of ", budget.max_bytes(), " bytes, which is its limit"));
}

MessageBytes::MessageBytes(size_t size, ByteBudget& budget) : budget_(&budget) {
  constexpr size_t kAlignment = HostPool::kAlignment;
  const size_t before = (kAlignment - size % kAlignment) % kAlignment;
  storage_ = HostPool::Shared().Allocate(before + size);
  bytes_ = storage_.span().subspan(before, size);
}

MessageBytes::MessageBytes(Buffer storage, ByteBudget& budget)
    : storage_(std::move(storage)), bytes_(storage_.span()), budget_(&budget) {}

MessageBytes::MessageBytes(Buffer storage, size_t size, ByteBudget& budget)
    : storage_(std::move(storage)), bytes_(storage_.span().first(size)), budget_(&budget) {}

bool MessageBytes::HoldFor(size_t received) {
  if (received <= held_) return true;
  return Hold(std::min(bytes_.size(), (received / kChargeStep + 1) * kChargeStep));
}

bool MessageBytes::Hold(size_t wanted) {
  if (wanted <= held_) return true;
  if (!budget_->Take(wanted - held_)) return false;
  held_ = wanted;
  return true;
}

Result<bool> MessageReader::Read(std::span<const uint8_t>* data, Message* message) {
  if (prefix_size_ < kPrefixBytes) {
    const size_t taken = std::min(kPrefixBytes - prefix_size_, data->size());
    if (taken != 0) std::memcpy(prefix_.data() + prefix_size_, data->data(), taken);
    prefix_size_ += taken;
    *data = data->subspan(taken);
    if (prefix_size_ < kPrefixBytes) return false;
    PENSTOCK_RETURN_IF_ERROR(BeginMessage());
  }
  const std::span<uint8_t> bytes = message_.bytes.span();
  const size_t taken = std::min(bytes.size() - received_, data->size());
  if (!message_.bytes.HoldFor(received_ + taken)) {
    return ByteBudgetExceeded(*budget_);
  }
  if (taken != 0) std::memcpy(bytes.data() + received_, data->data(), taken);
  received_ += taken;
  *data = data->subspan(taken);
  if (received_ < bytes.size()) return false;
  *message = std::exchange(message_, Message());
  prefix_size_ = received_ = 0;
  return true;
}

Status MessageReader::BeginMessage() {
  if (prefix_[0] > 1) {
    return Internal(StrCat("a message begins with the flag ", static_cast<int>(prefix_[0]),
                           ", expected 0 or 1"));
  }
  const size_t length = size_t{prefix_[1]} << 24 | size_t{prefix_[2]} << 16 |
                        size_t{prefix_[3]} << 8 | size_t{prefix_[4]};
  if (length > max_message_bytes_) {
    return ResourceExhausted(
        StrCat("Received message larger than max (", length, " vs. ", max_message_bytes_, ")"));
  }
  try {
    message_ = {MessageBytes(length, *budget_), prefix_[0] == 1};
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(StrCat("no memory for a message of ", length, " bytes"));
  }
  return Status::Ok();
}

}  // namespace penstock
