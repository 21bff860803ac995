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
        "CUDA initialization failure with error: 2 In checkCudaInstallation at runtime.cpp:840",
        "cudaErrorMemoryAllocation"}) {
    EXPECT_TRUE(TellsOfMemory(words)) << words;
  }
  for (const char* words : {"", "an illegal memory access was encountered", "invalid argument",
                            "CUDA initialization failure with error: 201 In"}) {
    EXPECT_FALSE(TellsOfMemory(words)) << words;
  }
}

TEST(LibraryErrorsTest, RefusalForTheVersion_SaysWhichLibraryRuns) {
  const std::string library = "the lean runtime 11.1.0.106, the one of pip's packages";
  for (const char* words :
       {"Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does "
        "not match. Note: Current Version: 239, Serialized Engine Version: 237",
        "The engine plan file is not compatible with this version of TensorRT, expecting library "
        "version 11.1.0 got 10.16.0, please rebuild.",
        "Trying to load an engine created with incompatible serialization version (",
        "Failed due to an old deserialization call on a newer plan file."}) {
    const Status told = WithLibrary({kOther, words}, library);
    EXPECT_EQ(told.code(), kOther);
    EXPECT_EQ(told.message(),
              words + ("; another version of TensorRT built the plan than the one that "
                       "is to run it, " +
                       library));
  }
  const Status other{kOther, "The engine plan file is generated on an incompatible device"};
  EXPECT_EQ(WithLibrary(other, library).message(), other.message());
}

TEST(LibraryErrorsTest, FirstThatIsLogged_IsTheCauseAndItsThreadsOwn) {
  FirstLogged::Add("of a call before");
  FirstLogged::Forget();
  FirstLogged::Add("the cause");
  FirstLogged::Add("what it led to");
  std::thread([] { EXPECT_EQ(FirstLogged::Take(), ""); }).join();
  EXPECT_EQ(FirstLogged::Take(), "the cause");
  EXPECT_EQ(FirstLogged::Take(), "");
  FirstLogged::Add("");
  EXPECT_NE(FirstLogged::Take(), "") << "there was an error all the same";
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
