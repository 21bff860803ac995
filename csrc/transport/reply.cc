#include "transport/reply.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "base/strcat.h"
#include "memory/host_pool.h"
#include "transport/out_queue.h"

namespace penstock {
namespace {

constexpr size_t kMaxProtobufBytes = (size_t{1} << 31) - 1;
// Shorter pieces are copied: a run of their own costs more.
constexpr size_t kReferBytes = 4096;

}  // namespace

void* Reply::operator new(size_t size, SessionMemory& memory) {
  if (void* const block = memory.Allocate(size)) return block;
  throw std::bad_alloc();
}

Status Reply::MakeReady(size_t max_bytes, Compression compression, int level) {
  const InferRequest& infer = AsInfer(request);
  size_ = infer.EncodedSize();
  if (size_ > kMaxProtobufBytes) {
    return Internal("the response is larger than a protobuf message can be (2 GiB)");
  }
  if (size_ > max_bytes) {
    return ResourceExhausted(
        StrCat("Sent message larger than max (", size_, " vs. ", max_bytes, ")"));
  }
  if (compression == Compression::kIdentity) {
    SetPrefix(/*is_compressed=*/false);
    return Status::Ok();
  }
  Buffer plain = HostPool::Shared().Allocate(size_);
  infer.EncodeTo(plain.span());
  PENSTOCK_ASSIGN_OR_RETURN(bytes_, Compress(compression, plain.span(), level, HostPool::Shared()));
  pieces_.assign(1, bytes_.span());
  size_ = bytes_.size();
  SetPrefix(/*is_compressed=*/true);
  request = RequestRef();
  message_ = MessageBytes();
  return Status::Ok();
}

void Reply::SetPrefix(bool is_compressed) {
  prefix_ = {static_cast<uint8_t>(is_compressed), static_cast<uint8_t>(size_ >> 24),
             static_cast<uint8_t>(size_ >> 16), static_cast<uint8_t>(size_ >> 8),
             static_cast<uint8_t>(size_)};
}

void Reply::EncodeNow() {
  if (!pieces_.empty() || !request) return;
  bytes_ = HostPool::Shared().Allocate(size_);
  AsInfer(request).EncodeTo(bytes_.span());
  pieces_.push_back(bytes_.span());
  request = RequestRef();
  message_ = MessageBytes();
}

// The framing in one buffer, cut where the tensors come.
void Reply::EncodePieces() {
  const InferRequest& infer = AsInfer(request);
  std::vector<size_t> cuts;
  bytes_ = HostPool::Shared().Allocate(infer.FramingSize());
  infer.EncodeFramingTo(bytes_.span(), &cuts);
  const std::span<const uint8_t> framing = bytes_.span();
  size_t from = 0;
  for (size_t i = 0; i < cuts.size(); ++i) {
    pieces_.push_back(framing.subspan(from, cuts[i] - from));
    from = cuts[i];
    if (!infer.outputs[i].data.empty()) pieces_.push_back(infer.outputs[i].data);
  }
  message_ = MessageBytes();  // outputs lie in memory of their own
}

void Reply::Take(size_t size, OutQueue* out) {
  if (!pieces_.empty()) {
    CopyOut(size, out);
    return;
  }
  const bool is_whole = taken_ == 0 && size == kPrefixBytes + size_;
  if (is_whole && size_ < kLargeBytes) {
    const std::span<uint8_t> room = out->Reserve(size);
    std::memcpy(room.data(), prefix_.data(), kPrefixBytes);
    AsInfer(request).EncodeTo(room.subspan(kPrefixBytes));
    taken_ = size;
    return;
  }
  if (size_ >= kLargeBytes && AsInfer(request).status.ok()) {
    EncodePieces();
  } else {
    EncodeNow();
  }
  CopyOut(size, out);
}

void Reply::CopyOut(size_t size, OutQueue* out) {
  if (taken_ < kPrefixBytes) {
    const size_t part = std::min(size, kPrefixBytes - taken_);
    out->Append(std::span(prefix_).subspan(taken_, part));
    taken_ += part;
    size -= part;
  }
  size_t begin = kPrefixBytes;  // of the piece, in the message with its prefix
  for (const std::span<const uint8_t> piece : pieces_) {
    if (size == 0) return;
    const size_t end = begin + piece.size();
    if (taken_ < end) {
      const size_t part = std::min(size, end - taken_);
      const std::span<const uint8_t> bytes = piece.subspan(taken_ - begin, part);
      if (part >= kReferBytes) {
        out->Refer(bytes, *this);
      } else {
        out->Append(bytes);
      }
      taken_ += part;
      size -= part;
    }
    begin = end;
  }
}

}  // namespace penstock
