#include "load/output.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace penstock::load {

void Output::Copy(const uint8_t* data, size_t size) {
  if (pieces_.empty() || pieces_.back().borrowed != nullptr) {
    pieces_.push_back({nullptr, own_.size(), 0});
  }
  own_.insert(own_.end(), data, data + size);
  pieces_.back().size += size;
  size_ += size;
}

void Output::Borrow(const uint8_t* data, size_t size) {
  pieces_.push_back({data, 0, size});
  size_ += size;
}

bool Output::Send(int fd) {
  std::array<iovec, kMostPieces> vector;
  msghdr message{};
  message.msg_iov = vector.data();
  message.msg_iovlen = Fill(vector);
  const ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0) return errno == EAGAIN || errno == EINTR;
  Drop(static_cast<size_t>(sent));
  return true;
}

size_t Output::Fill(std::array<iovec, kMostPieces>& vector) const {
  size_t count = 0;
  for (size_t i = first_; i < pieces_.size() && count < vector.size(); ++i) {
    const Piece& piece = pieces_[i];
    const uint8_t* data = piece.borrowed != nullptr ? piece.borrowed : own_.data() + piece.start;
    vector[count++] = {const_cast<uint8_t*>(data), piece.size};
  }
  return count;
}

void Output::Drop(size_t sent) {
  size_ -= sent;
  while (sent > 0) {
    Piece& piece = pieces_[first_];
    const size_t part = std::min(sent, piece.size);
    piece.size -= part;
    if (piece.borrowed != nullptr) {
      piece.borrowed += part;
    } else {
      piece.start += part;
    }
    sent -= part;
    if (piece.size == 0) ++first_;
  }
  if (size_ > 0) return;
  pieces_.clear();
  own_.clear();
  first_ = 0;
}

}  // namespace penstock::load
