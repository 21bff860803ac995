// Regions of shared memory: what may be registered, what a region that changes does to its readers.

#include "memory/shared_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "memory/system_region.h"
#include "testing/shm_object.h"

namespace penstock {
namespace {

using testing::HasSubstr;

// Files of this process that are called like the objects of this test.
size_t OpenObjects() {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;  // closed meanwhile
    const auto target = std::filesystem::read_symlink(entry.path(), error);
    if (!error && target.string().find("penstock-test-") != std::string::npos) ++count;
  }
  return count;
}

std::shared_ptr<RegionCloser> NoOwner(RegionCloser* closer) {
  return {closer, [](RegionCloser*) {}};
}

class SharedMemoryTest : public testing::Test {
 protected:
  void ExpectRefused(const SharedRegionInfo& info, StatusCode code, const std::string& text) {
    const Status status = memory_.Register(info);
    EXPECT_EQ(status.code(), code) << status.ToString();
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
    EXPECT_TRUE(memory_.List(RegionKind::kSystem, "")->empty());
  }

  ShmObject object_{std::string_view("0123456789")};
  SharedMemory memory_{{.is_allowed = true, .max_regions = 3}};
};

TEST_F(SharedMemoryTest, NotAllowed_EveryCallSaysHowToAllowIt) {
  SharedMemory memory({});
  for (const Status& status :
       {memory.Register(object_.Region("r", 10)), memory.Unregister(RegionKind::kSystem, ""),
        memory.List(RegionKind::kSystem, "").status(), memory.Find("r").status(),
        memory.CheckAllowed()}) {
    EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(status.message()), HasSubstr("--allow-client-shm=true"));
  }
}

TEST_F(SharedMemoryTest, Registered_IsListedAndFound) {
  ASSERT_TRUE(memory_.Register(object_.Region("b", 10)).ok());
  ASSERT_TRUE(memory_.Register(object_.Region("a", 4, 6)).ok());
  const auto all = memory_.List(RegionKind::kSystem, "");
  ASSERT_EQ(all->size(), 2U);
  EXPECT_EQ((*all)[0].name, "a");
  EXPECT_EQ((*all)[0].key, object_.key());
  EXPECT_EQ((*all)[0].offset, 6U);
  EXPECT_EQ((*all)[0].size_bytes, 4U);
  EXPECT_EQ(memory_.List(RegionKind::kSystem, "b")->size(), 1U);
  EXPECT_EQ((*memory_.Find("a"))->info().name, "a");
  EXPECT_EQ(*memory_.Find("c"), nullptr);
  EXPECT_EQ(memory_.List(RegionKind::kSystem, "c").status().ToString(),
            "NOT_FOUND: Unable to find system shared memory region: 'c'");
}

TEST_F(SharedMemoryTest, SameNameTwice_AlreadyExistsThoughItBeEqual) {
  ASSERT_TRUE(memory_.Register(object_.Region("r", 10)).ok());
  EXPECT_EQ(memory_.Register(object_.Region("r", 10)).ToString(),
            "ALREADY_EXISTS: shared memory region 'r' already in manager");
}

TEST_F(SharedMemoryTest, TooMany_AreRefused) {
  for (const char* name : {"a", "b", "c"}) {
    ASSERT_TRUE(memory_.Register(object_.Region(name, 10)).ok());
  }
  const Status status = memory_.Register(object_.Region("d", 10));
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'d': 3 are open"));
}

TEST_F(SharedMemoryTest, RegionThatIsUnregisteredInUse_CountsUntilItIsClosed) {
  for (const char* name : {"a", "b", "c"}) {
    ASSERT_TRUE(memory_.Register(object_.Region(name, 10)).ok());
  }
  std::shared_ptr<const SharedRegion> used = *memory_.Find("a");
  ASSERT_TRUE(memory_.Unregister(RegionKind::kSystem, "a").ok());
  EXPECT_EQ(memory_.Register(object_.Region("d", 10)).code(), StatusCode::kResourceExhausted);
  used.reset();
  memory_.TestOnlyCloser(RegionKind::kSystem).WaitIdle();
  EXPECT_TRUE(memory_.Register(object_.Region("d", 10)).ok());
}

TEST_F(SharedMemoryTest, RegionThatIsBeingClosed_StillCounts) {
  const auto places = std::make_shared<RegionPlaces>(1);
  RegionCloser closer("closer", places);
  ASSERT_TRUE(places->Take());
  auto region = SharedRegion::Share(*SystemRegion::Open(object_.Region("r", 10)), NoOwner(&closer));
  EXPECT_FALSE(places->Take());
  region.reset();
  closer.WaitIdle();
  EXPECT_TRUE(places->Take());
  EXPECT_FALSE(places->Take());
}

TEST_F(SharedMemoryTest, RefusedRegions_HoldNoPlace) {
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(memory_.Register(object_.Region("r", 11)).ok());
    EXPECT_FALSE(memory_.Register({.name = "r", .key = "/penstock-none", .size_bytes = 1}).ok());
  }
  for (const char* name : {"a", "b", "c"}) {
    EXPECT_TRUE(memory_.Register(object_.Region(name, 10)).ok());
    EXPECT_EQ(memory_.Register(object_.Region(name, 10)).code(), StatusCode::kAlreadyExists);
  }
}

TEST_F(SharedMemoryTest, KeyOfManySlashes_IsRefused) {
  SharedRegionInfo region = object_.Region("r", 10);
  region.key = std::string(1000, '/') + region.key;
  EXPECT_EQ(memory_.Register(region).code(), StatusCode::kInvalidArgument);
}

TEST_F(SharedMemoryTest, BoundsThatCannotBe_AreRefused) {
  const std::string prefix = "failed to register shared memory region 'r': invalid args: ";
  const auto expect = [&](uint64_t offset, uint64_t size_bytes, const std::string& text) {
    ExpectRefused(object_.Region("r", size_bytes, offset), StatusCode::kInvalidArgument,
                  prefix + text);
  };
  expect(0, 11, "offset 0 and byte size 11 reach beyond the 10 bytes");
  expect(10, 1, "offset 10 and byte size 1 reach beyond");
  expect(0, 0, "the byte size is 0");
  expect(1, UINT64_MAX, "offset 1 and byte size 18446744073709551615 are out of range");
  expect(UINT64_MAX, 1, "offset 18446744073709551615 and byte size 1 are out of range");
  expect(INT64_MAX, 1, "offset 9223372036854775807 and byte size 1 are out of range");
}

TEST_F(SharedMemoryTest, KeysThatCannotBe_AreRefused) {
  for (const std::string& key :
       {std::string(), std::string("/"), std::string("/../etc/passwd"), std::string("/a/b"),
        std::string(".."), std::string("/."), std::string("/a\0b", 4), std::string(256, 'k')}) {
    ExpectRefused({.name = "r", .key = key, .size_bytes = 1}, StatusCode::kInvalidArgument,
                  "invalid args: a key is '/' and a file name of at most 255 bytes");
  }
  ExpectRefused({.name = "r", .key = "/penstock-no-such", .size_bytes = 1}, StatusCode::kInternal,
                "Unable to open shared memory region: '/penstock-no-such'");
}

TEST_F(SharedMemoryTest, KeyWithoutSlashOrWithTwo_IsTheSameObject) {
  SharedRegionInfo info = object_.Region("bare", 10);
  info.key = object_.key().substr(1);
  EXPECT_TRUE(memory_.Register(info).ok());
  info.name = "twice";
  info.key = "/" + object_.key();
  EXPECT_TRUE(memory_.Register(info).ok());
}

TEST_F(SharedMemoryTest, NamesThatCannotBe_AreRefused) {
  for (const size_t length : {size_t{0}, SharedMemory::kMaxNameBytes + 1}) {
    ExpectRefused(object_.Region(std::string(length, 'n'), 10), StatusCode::kInvalidArgument,
                  "the name must have 1 to 1024 bytes");
  }
}

TEST_F(SharedMemoryTest, WhatIsNoRegularFile_IsRefusedWithoutWaiting) {
  const std::string pipe = object_.key() + "-pipe";
  const std::string link = object_.key() + "-link";
  ASSERT_EQ(mkfifo(("/dev/shm" + pipe).c_str(), 0600), 0);
  ASSERT_EQ(symlink("/etc/hostname", ("/dev/shm" + link).c_str()), 0);
  ExpectRefused({.name = "r", .key = pipe, .size_bytes = 1}, StatusCode::kInternal,
                "Invalid shared memory region: '" + pipe + "'");
  ExpectRefused({.name = "r", .key = link, .size_bytes = 1}, StatusCode::kInternal,
                "Unable to open shared memory region: '" + link + "'");
  shm_unlink(pipe.c_str());
  shm_unlink(link.c_str());
}

TEST_F(SharedMemoryTest, ReadAndWrite_AreWithinTheRegion) {
  ASSERT_TRUE(memory_.Register(object_.Region("r", 6, 3)).ok());
  const auto region = *memory_.Find("r");
  std::string got(4, '\0');
  ASSERT_TRUE(region->Read(2, {reinterpret_cast<uint8_t*>(got.data()), got.size()}).ok());
  EXPECT_EQ(got, "5678");
  const std::string put = "xy";
  ASSERT_TRUE(region->Write(4, {reinterpret_cast<const uint8_t*>(put.data()), put.size()}).ok());
  EXPECT_EQ(object_.Read(10), "0123456xy9");
  EXPECT_TRUE(region->Contains(0, 6));
  EXPECT_TRUE(region->Contains(6, 0));
  EXPECT_FALSE(region->Contains(1, 6));
  EXPECT_FALSE(region->Contains(7, 0));
  EXPECT_FALSE(region->Contains(UINT64_MAX, 2));
  EXPECT_FALSE(region->Contains(2, UINT64_MAX));
}

TEST_F(SharedMemoryTest, ObjectThatShrank_IsAnErrorAndIsNotEnlarged) {
  ASSERT_TRUE(memory_.Register(object_.Region("r", 8, 2)).ok());
  const auto region = *memory_.Find("r");
  object_.Resize(5);
  std::vector<uint8_t> bytes(8);
  EXPECT_EQ(region->Read(0, bytes).ToString(),
            "INVALID_ARGUMENT: shared memory region 'r' has become too small: expected 8 bytes, "
            "got 3");
  EXPECT_EQ(region->Write(0, bytes).ToString(),
            "INVALID_ARGUMENT: shared memory region 'r' has become too small: expected 8 bytes, "
            "got 3");
  EXPECT_EQ(object_.size(), 5U);
  object_.Resize(0);
  EXPECT_FALSE(region->Read(0, bytes).ok());
  EXPECT_FALSE(region->Write(7, std::span(bytes).first(1)).ok());
  EXPECT_TRUE(region->Read(3, std::span(bytes).first(0)).ok());
}

TEST_F(SharedMemoryTest, ObjectThatWasUnlinked_IsStillThere) {
  ASSERT_TRUE(memory_.Register(object_.Region("r", 10)).ok());
  object_.Unlink();
  std::vector<uint8_t> bytes(10);
  EXPECT_TRUE((*memory_.Find("r"))->Read(0, bytes).ok());
}

TEST_F(SharedMemoryTest, Unregistered_TheNameGoesAtOnceAndTheFileWithItsLastUser) {
  const size_t before = OpenObjects();
  ASSERT_TRUE(memory_.Register(object_.Region("r", 10)).ok());
  auto region = *memory_.Find("r");
  EXPECT_EQ(OpenObjects(), before + 1);
  ASSERT_TRUE(memory_.Unregister(RegionKind::kSystem, "r").ok());
  EXPECT_EQ(*memory_.Find("r"), nullptr);
  EXPECT_EQ(OpenObjects(), before + 1);
  ASSERT_TRUE(memory_.Register(object_.Region("r", 10)).ok());  // the name is free
  std::vector<uint8_t> bytes(10);
  EXPECT_TRUE(region->Read(0, bytes).ok());
  region.reset();
  memory_.TestOnlyCloser(RegionKind::kSystem).WaitIdle();
  EXPECT_EQ(OpenObjects(), before + 1);
  ASSERT_TRUE(memory_.Unregister(RegionKind::kSystem, "").ok());
  EXPECT_EQ(OpenObjects(), before);
  EXPECT_TRUE(memory_.Unregister(RegionKind::kSystem, "nobody").ok());
}

// Freeing the pages of an object that its client has unlinked takes as long as it has pages: not on
// the thread of an event loop or of a connection, where requests end.
TEST_F(SharedMemoryTest, LastUser_LeavesTheClosingToAThreadOfItsOwn) {
  ASSERT_TRUE(memory_.Register(object_.Region("r", 10)).ok());
  auto region = *memory_.Find("r");
  ASSERT_TRUE(memory_.Unregister(RegionKind::kSystem, "r").ok());
  EXPECT_EQ(memory_.TestOnlyCloser(RegionKind::kSystem).TestOnlyClosed(), 0U);
  region.reset();
  memory_.TestOnlyCloser(RegionKind::kSystem).WaitIdle();
  EXPECT_EQ(memory_.TestOnlyCloser(RegionKind::kSystem).TestOnlyClosed(), 1U);
}

TEST_F(SharedMemoryTest, RegionThatOutlivesItsMemory_IsClosedByItsUser) {
  const size_t before = OpenObjects();
  std::shared_ptr<const SharedRegion> region;
  {
    SharedMemory memory({.is_allowed = true});
    ASSERT_TRUE(memory.Register(object_.Region("r", 10)).ok());
    region = *memory.Find("r");
  }
  EXPECT_EQ(OpenObjects(), before + 1);
  region.reset();
  EXPECT_EQ(OpenObjects(), before);
}

TEST_F(SharedMemoryTest, RefusedObject_IsClosed) {
  const size_t before = OpenObjects();
  ExpectRefused(object_.Region("r", 11), StatusCode::kInvalidArgument, "reach beyond");
  EXPECT_EQ(OpenObjects(), before);
}

TEST_F(SharedMemoryTest, ManyThreads_OneRegistrationOfANameWins) {
  std::atomic<int> won{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        if (memory_.Register(object_.Region("r", 10)).ok()) {
          won += 1;
          std::vector<uint8_t> bytes(10);
          const auto region = *memory_.Find("r");  // null where another was quicker to forget it
          if (region != nullptr) {
            EXPECT_TRUE(region->Read(0, bytes).ok());
          }
          EXPECT_TRUE(memory_.Unregister(RegionKind::kSystem, "r").ok());
        }
        EXPECT_TRUE(memory_.List(RegionKind::kSystem, "").ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(won.load(), 0);
  EXPECT_TRUE(memory_.List(RegionKind::kSystem, "")->empty());
}

}  // namespace
}  // namespace penstock
