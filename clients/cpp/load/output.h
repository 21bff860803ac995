// Output: bytes on their way to a socket, sent with one system call from where they lie.

#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace penstock::load {

// Bytes of its own, and borrowed ones in between.
// Threading: thread-compatible.
// Ownership: whoever lends bytes keeps them until IsDrained().
class Output {
 public:
  void Copy(const uint8_t* data, size_t size);
  void Borrow(const uint8_t* data, size_t size);

  // Enough for one call to the kernel: ask for no more before this is sent.
  bool IsFull() const { return size_ >= kFullBytes; }
  bool IsDrained() const { return size_ == 0; }

  // One sendmsg, never blocking. False when the connection is broken (errno says how).
  bool Send(int fd);

 private:
  static constexpr size_t kFullBytes = 512 << 10;
  static constexpr size_t kMostPieces = 256;

  struct Piece {
    const uint8_t* borrowed;  // null: at `start` of own_
    size_t start;
    size_t size;
  };

  size_t Fill(std::array<iovec, kMostPieces>& vector) const;
  void Drop(size_t sent);

  std::vector<uint8_t> own_;
  std::vector<Piece> pieces_;
  size_t first_ = 0;  // piece that is not yet sent
  size_t size_ = 0;
};

}  // namespace penstock::load
