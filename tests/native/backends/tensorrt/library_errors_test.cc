#include "backends/tensorrt/library_errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace penstock::tensorrt {
namespace {

using ::testing::HasSubstr;

constexpr StatusCode kOther = StatusCode::kInvalidArgument;

TEST(LibraryErrorsTest, FirstError_IsWhyTheCallFailed) {
  LibraryErrors errors;
  errors.Add({.code = 9, .words = "the cause"});
  errors.Add({.code = 2, .words = "what it led to"});
  const Status status = errors.Take(kOther, "TensorRT does not enqueue");
  EXPECT_EQ(status.ToString(), "INVALID_ARGUMENT: TensorRT does not enqueue: the cause");
  EXPECT_EQ(errors.size(), 0U);
}

TEST(LibraryErrorsTest, NothingReported_IsSaidOrWhatTheLogHad) {
  LibraryErrors errors;
  EXPECT_EQ(errors.Take(kOther, "it fails").message(), "it fails: TensorRT does not say why");
  EXPECT_EQ(errors.Take(kOther, "it fails", "a line").message(), "it fails: a line");
  EXPECT_EQ(errors.Take(kOther, "it fails", "CUDA error: out of memory").code(),
            StatusCode::kResourceExhausted);
  errors.Add({.words = "reported"});
  EXPECT_EQ(errors.Take(kOther, "it fails", "a line").message(), "it fails: reported");
}

TEST(LibraryErrorsTest, LackOfMemory_IsResourceExhaustedWhereverItStands) {
  LibraryErrors errors;
  errors.Add({.words = "Could not find any implementation"});
  errors.Add({.code = 5, .is_of_memory = true, .words = "FAILED_ALLOCATION - no"});
  EXPECT_EQ(errors.Take(kOther, "prepare").ToString(),
            "RESOURCE_EXHAUSTED: prepare: FAILED_ALLOCATION - no");
  EXPECT_EQ(errors.Take(kOther, "prepare").code(), kOther) << "taken with the call before";
}

TEST(LibraryErrorsTest, WordsOfMemory_AreTensorRtsAndCudas) {
  for (const char* words :
       {"1: [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
        "Error Code 2: OutOfMemory (Requested size was 1024 bytes.)",
        "Requested amount of GPU memory (1024 bytes) could not be allocated.",
        "cudaErrorMemoryAllocation"}) {
    EXPECT_TRUE(TellsOfMemory(words)) << words;
  }
  for (const char* words : {"", "an illegal memory access was encountered", "invalid argument"}) {
    EXPECT_FALSE(TellsOfMemory(words)) << words;
  }
}

TEST(LibraryErrorsTest, WhatACallBeforeReported_IsCleared) {
  LibraryErrors errors;
  errors.Add({.words = "of a call that went well all the same"});
  errors.Clear();
  EXPECT_EQ(errors.size(), 0U);
  EXPECT_EQ(errors.Take(kOther, "it fails").message(), "it fails: TensorRT does not say why");
}

TEST(LibraryErrorsTest, LibraryThatReportsWithoutEnd_IsKeptInBounds) {
  LibraryErrors errors;
  for (size_t i = 0; i < LibraryErrors::kMost; ++i) errors.Add({.code = 3, .words = "error"});
  EXPECT_FALSE(errors.has_overflowed());
  errors.Add({.code = 4, .words = "one too many"});
  EXPECT_TRUE(errors.has_overflowed());
  EXPECT_EQ(errors.size(), LibraryErrors::kMost);
  ASSERT_TRUE(errors.At(LibraryErrors::kMost - 1).has_value());
  EXPECT_EQ(errors.At(LibraryErrors::kMost - 1)->code, 3);
  EXPECT_FALSE(errors.At(LibraryErrors::kMost).has_value());
  errors.Clear();
  EXPECT_FALSE(errors.has_overflowed());
  errors.Add({.words = std::string(LibraryErrors::kMaxWords + 1, 'x')});
  EXPECT_EQ(errors.At(0)->words.size(), LibraryErrors::kMaxWords);
}

// As TensorRT's own threads do while a call of ours is in it.
TEST(LibraryErrorsTest, ErrorOfAnotherThread_IsTheCallsOwn) {
  LibraryErrors errors;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) errors.Add({.words = "on a thread of the library's"});
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(std::string(errors.Take(kOther, "it fails").message()),
              HasSubstr("on a thread of the library's"));
}

}  // namespace
}  // namespace penstock::tensorrt
