// What the other tests take for granted of the fake: that it is as unforgiving as a GPU.
#include "testing/fake_gpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

namespace penstock {
namespace {

using gpu::CopyKind;
using gpu::Error;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

#define ASSERT_SUCCESS(call) ASSERT_EQ(call, Error::kSuccess)

// Two streams, 64 bytes of pinned memory, and as many on the device.
class FakeGpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (gpu::Stream& stream : streams_) ASSERT_SUCCESS(gpu_.CreateStream(&stream));
    ASSERT_SUCCESS(gpu_.CreateEvent(&event_));
    ASSERT_SUCCESS(gpu_.AllocatePinned(64, &pinned_));
    ASSERT_SUCCESS(gpu_.AllocateAsync(64, streams_[0], &device_));
    std::memset(pinned_, 7, 64);
  }
  Error In(gpu::Stream stream) {
    return gpu_.CopyAsync({device_, pinned_, 64}, CopyKind::kHostToDevice, stream);
  }
  Error Out(gpu::Stream stream) {
    return gpu_.CopyAsync({pinned_, device_, 64}, CopyKind::kDeviceToHost, stream);
  }

  FakeGpu gpu_;
  gpu::Stream streams_[2] = {};
  gpu::Event event_ = nullptr;
  void* pinned_ = nullptr;
  void* device_ = nullptr;
};

TEST_F(FakeGpuTest, Copies_HappenInTheStreamsOrder) {
  ASSERT_SUCCESS(In(streams_[0]));
  ASSERT_SUCCESS(Out(streams_[0]));
  ASSERT_SUCCESS(gpu_.SynchronizeStream(streams_[0]));
  EXPECT_EQ(static_cast<uint8_t*>(device_)[63], 7);
  EXPECT_THAT(gpu_.races(), IsEmpty());
  EXPECT_EQ(gpu_.pageable_copies(), 0);
}

TEST_F(FakeGpuTest, HeldStream_LeavesItsEventNotReady) {
  gpu_.HoldStreams();
  ASSERT_SUCCESS(In(streams_[0]));
  ASSERT_SUCCESS(gpu_.RecordEvent(event_, streams_[0]));
  EXPECT_EQ(gpu_.QueryEvent(event_), Error::kNotReady);
  gpu_.ReleaseStreams();
  ASSERT_SUCCESS(gpu_.SynchronizeStream(streams_[0]));
  EXPECT_EQ(gpu_.QueryEvent(event_), Error::kSuccess);
}

TEST_F(FakeGpuTest, EventThatIsAwaited_OrdersTwoStreams) {
  ASSERT_SUCCESS(In(streams_[0]));
  ASSERT_SUCCESS(gpu_.RecordEvent(event_, streams_[0]));
  ASSERT_SUCCESS(gpu_.StreamWaitEvent(streams_[1], event_));
  ASSERT_SUCCESS(Out(streams_[1]));
  EXPECT_THAT(gpu_.races(), IsEmpty());
  ASSERT_SUCCESS(gpu_.SynchronizeStream(streams_[1]));
}

TEST_F(FakeGpuTest, WaitForAnOlderRecord_DoesNotOrderWhatCameAfterIt) {
  ASSERT_SUCCESS(gpu_.RecordEvent(event_, streams_[0]));
  ASSERT_SUCCESS(gpu_.StreamWaitEvent(streams_[1], event_));
  ASSERT_SUCCESS(gpu_.SynchronizeStream(streams_[1]));
  const auto nothing = [] { return Error::kSuccess; };
  ASSERT_SUCCESS(gpu_.Launch(streams_[0], {.writes = {{device_, 8}}, .run = nothing}));
  ASSERT_SUCCESS(gpu_.Launch(streams_[1], {.reads = {{device_, 8}}, .run = nothing}));
  ASSERT_THAT(gpu_.races(), SizeIs(1));
  EXPECT_THAT(gpu_.races()[0], HasSubstr("of stream 1 reads what operation 1 of stream 0 writes"));
}

TEST_F(FakeGpuTest, HostThatKnowsTheEnd_OrdersWhatItEnqueuesThen) {
  ASSERT_SUCCESS(In(streams_[0]));
  ASSERT_SUCCESS(gpu_.SynchronizeStream(streams_[0]));
  ASSERT_SUCCESS(Out(streams_[1]));
  ASSERT_SUCCESS(gpu_.SynchronizeStream(streams_[1]));
  EXPECT_THAT(gpu_.races(), IsEmpty());
}

TEST_F(FakeGpuTest, CopyBeyondABlock_IsRefused) {
  EXPECT_EQ(gpu_.CopyAsync({device_, pinned_, 65}, CopyKind::kHostToDevice, streams_[0]),
            Error::kInvalidValue);
  EXPECT_EQ(gpu_.CopyAsync({pinned_, pinned_, 8}, CopyKind::kHostToDevice, streams_[0]),
            Error::kInvalidValue);
}

TEST_F(FakeGpuTest, CopyFromOtherMemory_IsCounted) {
  std::vector<uint8_t> pageable(64);
  const gpu::Copy copy{device_, pageable.data(), 64};
  ASSERT_SUCCESS(gpu_.CopyAsync(copy, CopyKind::kHostToDevice, streams_[0]));
  EXPECT_EQ(gpu_.pageable_copies(), 1);
  ASSERT_SUCCESS(gpu_.SynchronizeStream(streams_[0]));
}

TEST_F(FakeGpuTest, MemoryThatIsAllTaken_IsAnErrorUntilSomeComesBack) {
  FakeGpu small({.memory_bytes = 100});
  gpu::Stream stream = nullptr;
  void* first = nullptr;
  void* second = nullptr;
  ASSERT_SUCCESS(small.CreateStream(&stream));
  ASSERT_SUCCESS(small.AllocateAsync(80, stream, &first));
  EXPECT_EQ(small.AllocateAsync(21, stream, &second), Error::kMemoryAllocation);
  EXPECT_EQ(small.TakeLastError(), Error::kMemoryAllocation);
  EXPECT_EQ(small.TakeLastError(), Error::kSuccess);
  ASSERT_SUCCESS(small.FreeAsync(first, stream));
  ASSERT_SUCCESS(small.AllocateAsync(21, stream, &second));
}

TEST_F(FakeGpuTest, CapturedWork_RunsWhenTheGraphIsLaunched) {
  gpu::Graph graph = nullptr;
  gpu::GraphExec exec = nullptr;
  ASSERT_SUCCESS(gpu_.BeginCapture(streams_[0]));
  ASSERT_SUCCESS(In(streams_[0]));
  ASSERT_SUCCESS(gpu_.EndCapture(streams_[0], &graph));
  ASSERT_SUCCESS(gpu_.Instantiate(graph, &exec));
  ASSERT_SUCCESS(gpu_.SynchronizeStream(streams_[0]));
  EXPECT_EQ(static_cast<uint8_t*>(device_)[0], 0xa5);
  ASSERT_SUCCESS(gpu_.LaunchGraph(exec, streams_[1]));
  ASSERT_SUCCESS(gpu_.SynchronizeStream(streams_[1]));
  EXPECT_EQ(static_cast<uint8_t*>(device_)[0], 7);
}

TEST_F(FakeGpuTest, CaptureOfWhatCannotBe_IsInvalid) {
  gpu::Graph graph = nullptr;
  void* more = nullptr;
  ASSERT_SUCCESS(gpu_.BeginCapture(streams_[0]));
  EXPECT_EQ(gpu_.AllocatePinned(8, &more), Error::kStreamCaptureUnsupported);
  EXPECT_EQ(gpu_.EndCapture(streams_[0], &graph), Error::kStreamCaptureInvalidated);
  ASSERT_SUCCESS(gpu_.BeginCapture(streams_[0]));
  EXPECT_EQ(gpu_.SynchronizeStream(streams_[0]), Error::kStreamCaptureUnsupported);
  EXPECT_EQ(gpu_.EndCapture(streams_[0], &graph), Error::kStreamCaptureInvalidated);
  // Thread-local: others go on.
  ASSERT_SUCCESS(gpu_.BeginCapture(streams_[0]));
  std::thread([&] { EXPECT_EQ(gpu_.AllocatePinned(8, &more), Error::kSuccess); }).join();
  ASSERT_SUCCESS(gpu_.EndCapture(streams_[0], &graph));
}

TEST_F(FakeGpuTest, StickyError_StaysAndStopsTheWork) {
  ASSERT_SUCCESS(In(streams_[0]));
  ASSERT_SUCCESS(gpu_.SynchronizeStream(streams_[0]));
  gpu_.FaultWork(1, Error::kIllegalAddress);
  std::memset(pinned_, 9, 64);
  ASSERT_SUCCESS(Out(streams_[0]));  // this one
  EXPECT_EQ(gpu_.SynchronizeStream(streams_[0]), Error::kIllegalAddress);
  EXPECT_EQ(In(streams_[1]), Error::kIllegalAddress);
  EXPECT_EQ(gpu_.TakeLastError(), Error::kIllegalAddress);
  EXPECT_EQ(gpu_.TakeLastError(), Error::kIllegalAddress);
  EXPECT_EQ(static_cast<uint8_t*>(pinned_)[0], 9) << "nothing was copied out";
}

TEST_F(FakeGpuTest, FailCall_CountsCallsOfItsName) {
  gpu_.FailCall("RecordEvent", 2, Error::kInvalidValue);
  EXPECT_EQ(gpu_.RecordEvent(event_, streams_[0]), Error::kSuccess);
  EXPECT_EQ(gpu_.QueryEvent(nullptr), Error::kInvalidResourceHandle);
  EXPECT_EQ(gpu_.RecordEvent(event_, streams_[0]), Error::kInvalidValue);
  EXPECT_EQ(gpu_.RecordEvent(event_, streams_[0]), Error::kSuccess);
}

TEST_F(FakeGpuTest, WhatIsGivenBack_IsNotThereAnyMore) {
  ASSERT_SUCCESS(gpu_.FreeAsync(device_, streams_[0]));
  EXPECT_EQ(gpu_.FreeAsync(device_, streams_[0]), Error::kInvalidValue);
  ASSERT_SUCCESS(gpu_.FreePinned(pinned_));
  ASSERT_SUCCESS(gpu_.DestroyEvent(event_));
  for (gpu::Stream stream : streams_) ASSERT_SUCCESS(gpu_.DestroyStream(stream));
  EXPECT_EQ(gpu_.DestroyStream(streams_[0]), Error::kInvalidResourceHandle);
  EXPECT_EQ(gpu_.live_objects(), 0U);
}

}  // namespace
}  // namespace penstock
