// Models whose sessions pay for another number of rows than they ran last: which are run with rows behind
// a batch, and which with their own rows as ever.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "session_harness.h"
#include "testing/fake_clock.h"

namespace penstock::ort {
namespace {

using ::testing::IsEmpty;

// What batches of 8, 1 and 5 rows in turn, 20 times, had the session do.
struct Seen {
  int row_changes = 0;
  DeviceUse use;
};

Seen RunInTurn(FakeModels& fake, BackendModel& model) {
  auto instance = *model.CreateInstance({});
  const int before = fake.log.row_changes.load();
  for (int i = 0; i < 20; ++i) {
    for (const int rows : {8, 1, 5}) {
      const RowBatch batch(i * rows, rows, 4);
      std::vector<BatchOutput> outputs;
      const Status status = batch.Run(*instance, &outputs);
      EXPECT_TRUE(status.ok()) << status.ToString();
      EXPECT_TRUE(batch.IsRight(outputs)) << rows << " rows";
    }
  }
  EXPECT_THAT(fake.gpu->races(), IsEmpty());
  return {fake.log.row_changes.load() - before, model.device_use().front()};
}

Seen LoadAndRun(FakeSessionOptions session, const std::map<std::string, std::string>& parameters) {
  const QuietLog quiet;
  FakeClock clock;
  session.clock = &clock;
  FakeModels fake(session);
  auto model = fake.Load(parameters);
  EXPECT_TRUE(model.ok()) << model.status().ToString();
  return model.ok() ? RunInTurn(fake, **model) : Seen{};
}

TEST(SessionRowsTest, ModelWhoseRequestsShareBatches_SeldomChangesItsRows) {
  const Seen seen = LoadAndRun({}, {{"dynamic_batching", "1"}});
  EXPECT_LE(seen.row_changes, 1);
  EXPECT_EQ(seen.use.row_changes, 1U);
  EXPECT_EQ(seen.use.uncaptured_padded_rows, 20 * (7 + 3U));
}

TEST(SessionRowsTest, EachLane_HasASizeOfItsOwn) {
  const Seen seen = LoadAndRun({}, {{"dynamic_batching", "1"}, {"lanes", "3"}});
  EXPECT_LE(seen.row_changes, 9) << "batches that come to a lane first may be the small ones";
  EXPECT_GE(seen.use.row_changes, 3U);
}

TEST(SessionRowsTest, RequestsThatShareNoBatch_HaveNothingBehindThem) {
  for (const std::map<std::string, std::string>& parameters :
       {std::map<std::string, std::string>{}, {{"dynamic_batching", "0"}}}) {
    const Seen seen = LoadAndRun({}, parameters);
    EXPECT_GE(seen.row_changes, 59);
    EXPECT_EQ(seen.use.uncaptured_padded_rows, 0U);
  }
}

TEST(SessionRowsTest, TensorrtsProvider_RunsWhatItsProfileHas) {
  const Seen seen = LoadAndRun({}, {{"dynamic_batching", "1"}, {"accelerators", "tensorrt"}});
  EXPECT_GE(seen.row_changes, 59);
  EXPECT_EQ(seen.use.uncaptured_padded_rows, 0U);
}

TEST(SessionRowsTest, InputThatTheHostReads_HasNothingBehindIt) {
  const Seen seen = LoadAndRun({.host_input = HostInput::kTold}, {{"dynamic_batching", "1"}});
  EXPECT_GE(seen.row_changes, 59);
  EXPECT_EQ(seen.use.uncaptured_padded_rows, 0U);
}

TEST(SessionRowsTest, OpenShapes_AreRunAsTheyAre) {
  const Seen seen = LoadAndRun({.width = -1}, {{"dynamic_batching", "1"}, {"shape:x", "1:4:8"}});
  EXPECT_GE(seen.row_changes, 59);
  EXPECT_EQ(seen.use.uncaptured_padded_rows, 0U);
}

}  // namespace
}  // namespace penstock::ort
