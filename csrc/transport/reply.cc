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

Reply::Reply(ReplyRef whole, std::shared_ptr<ResponseChannel> channel, MessageBytes responses,
             size_t count, size_t room_bytes)
    : whole(std::move(whole)),
      channel(std::move(channel)),
      count(count),
      room_bytes(room_bytes),
      message_(std::move(responses)),
      size_(message_.span().size()),
      taken_(kPrefixBytes) {  // each response brings its own
  pieces_.push_back(std::as_const(message_).span());
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

void Reply::SetPrefix(bool is_compressed) { prefix_ = PrefixOf(is_compressed, size_); }

std::array<uint8_t, Reply::kPrefixBytes> Reply::PrefixOf(bool is_compressed, size_t size) {
  return {static_cast<uint8_t>(is_compressed), static_cast<uint8_t>(size >> 24),
          static_cast<uint8_t>(size >> 16), static_cast<uint8_t>(size >> 8),
          static_cast<uint8_t>(size)};
}

Result<Buffer> CompressBlock(const ResponseBlock& block, Compression compression, int level) {
  std::vector<Buffer> compressed;
  size_t total = 0;
  for (const std::span<const uint8_t> message : MessagesOf(block)) {
    PENSTOCK_ASSIGN_OR_RETURN(Buffer bytes,
                              Compress(compression, message, level, HostPool::Shared()));
    total += Reply::kPrefixBytes + bytes.size();
    compressed.push_back(std::move(bytes));
  }
  Buffer joined = HostPool::Shared().Allocate(total);
  uint8_t* out = joined.data();
  for (const Buffer& bytes : compressed) {
    const auto prefix = Reply::PrefixOf(/*is_compressed=*/true, bytes.size());
    out = std::copy(prefix.begin(), prefix.end(), out);
    out = std::copy_n(bytes.data(), bytes.size(), out);
  }
  return joined;
}

void Reply::EncodeNow() {
  if (!pieces_.empty() || !request) return;
  bytes_ = HostPool::Shared().Allocate(size_);
  AsInfer(request).EncodeTo(bytes_.span());
  pieces_.push_back(bytes_.span());
  request = RequestRef();
  message_ = MessageBytes();
}

void Reply::CopyRest() {
  size_t skip = std::max(taken_, kPrefixBytes) - kPrefixBytes;
  Buffer rest = HostPool::Shared().Allocate(size_ - skip);
  uint8_t* to = rest.data();
  for (const std::span<const uint8_t> piece : pieces_) {
    const size_t gone = std::min(skip, piece.size());
    to = std::copy(piece.begin() + static_cast<ptrdiff_t>(gone), piece.end(), to);
    skip -= gone;
  }
  size_ = rest.size();
  taken_ = std::min(taken_, kPrefixBytes);
  bytes_ = std::move(rest);
  pieces_.assign(1, std::as_const(bytes_).span());
  request = RequestRef();
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
