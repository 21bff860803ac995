// Lines on a standard error that is a pipe: whole, or not there and counted.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <string>

#include "base/log.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::StartsWith;

// Standard error is a pipe that does not block, until it goes.
class PipeOnStderr {
 public:
  PipeOnStderr() : before_(dup(STDERR_FILENO)) {
    EXPECT_EQ(pipe2(ends_.data(), O_NONBLOCK | O_CLOEXEC), 0);
    EXPECT_EQ(dup2(ends_[1], STDERR_FILENO), STDERR_FILENO);
  }
  ~PipeOnStderr() {
    dup2(before_, STDERR_FILENO);
    for (const int fd : {before_, ends_[0], ends_[1]}) close(fd);
  }
  PipeOnStderr(const PipeOnStderr&) = delete;
  PipeOnStderr& operator=(const PipeOnStderr&) = delete;

  // What one read of the size of a pipe's atomic write gets; "" where there is nothing.
  std::string ReadPiece() {
    std::string text(PIPE_BUF, '\0');
    const ssize_t size = read(ends_[0], text.data(), text.size());
    text.resize(size > 0 ? static_cast<size_t>(size) : 0);
    return text;
  }
  std::string ReadAll() {
    std::string all;
    for (std::string piece = ReadPiece(); !piece.empty(); piece = ReadPiece()) all += piece;
    return all;
  }

 private:
  const int before_;
  std::array<int, 2> ends_{};
};

size_t Lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

TEST(LogPipeTest, FullPipe_HasWholeLinesAndTheOthersAreCounted) {
  PipeOnStderr pipe;
  std::string lines;
  for (int i = 0; i < 2000; ++i) lines += std::string(100, 'x') + '\n';
  const size_t lost = WriteLogLines(lines);
  const std::string read = pipe.ReadAll();
  EXPECT_GT(lost, 0U);
  EXPECT_GT(Lines(read), 0U);
  EXPECT_THAT(read, EndsWith("x\n"));
  EXPECT_EQ(Lines(read) + lost, 2000U);
}

TEST(LogPipeTest, Pieces_EndWithLinesAndAreAsLargeAsAPipeTakesWhole) {
  PipeOnStderr pipe;
  const std::string most(PIPE_BUF - 1, 'a');
  const std::string longer(PIPE_BUF, 'b');
  EXPECT_EQ(WriteLogLines(most + "\nc\n" + longer + "\nd\n"), 0U);
  // Each write has its own page of the pipe's where it does not fit into the last.
  EXPECT_EQ(pipe.ReadPiece(), most + "\n");
  EXPECT_EQ(pipe.ReadAll(), "c\n" + longer + "\nd\n");
}

TEST(LogPipeTest, LongLineThatWasCutShort_IsEndedBeforeTheNext) {
  PipeOnStderr pipe;
  EXPECT_EQ(WriteLogLines(std::string(200'000, 'a') + "\n"), 1U);
  EXPECT_EQ(WriteLogLines("lost too\n"), 1U);
  EXPECT_EQ(Lines(pipe.ReadAll()), 0U);
  EXPECT_EQ(WriteLogLines("b\n"), 0U);
  EXPECT_EQ(WriteLogLines("c\n"), 0U);
  EXPECT_EQ(pipe.ReadAll(), "\nb\nc\n");
}

TEST(LogPipeTest, ClosedStderr_LosesLinesAndNothingElse) {
  const int before = dup(STDERR_FILENO);
  close(STDERR_FILENO);
  const size_t lost = WriteLogLines("a\nb\n");
  dup2(before, STDERR_FILENO);
  close(before);
  EXPECT_EQ(lost, 2U);
}

}  // namespace
}  // namespace penstock
