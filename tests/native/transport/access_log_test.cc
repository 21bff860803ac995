// The access log: a line for each call, whoever answers it, and none where it is off.

#include "transport/access_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/log.h"
#include "base/strcat.h"
#include "transport_harness.h"

namespace penstock {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

AccessRecord Record(std::string_view model) {
  AccessRecord record;
  record.method.Set("/s/M");
  record.model.Set(model);
  record.peer.Set("ipv4:1.2.3.4:5");
  record.status = StatusCode::kOk;
  record.ended_ns = 1'500'000;
  return record;
}

// What a transport with an access log writes of what is done with it.
class AccessLogOfATransport : public testing::Test {
 protected:
  AccessLogOfATransport() : harness_({.access_log = true}) {
    harness_.models.Serve(IdentitySpec());
  }

  // Ends the log, which writes what there is.
  std::string Lines() {
    testing::internal::CaptureStderr();
    harness_.shared->access_log->Start();
    harness_.shared->access_log->Stop();
    return testing::internal::GetCapturedStderr();
  }

  TransportHarness harness_;
};

TEST_F(AccessLogOfATransport, CallOfInferenceIsALineWithItsModelVersionAndId) {
  Http2Client& client = harness_.Connect();
  const std::string message = InferMessage("m").Id("r-1").Row({1.0F, 2.0F}).bytes();
  const int32_t id = client.Call(kInfer, Framed(message), true, {{"authorization", "Bearer KEY"}});
  ASSERT_EQ(harness_.Await(client, id).status(), "0");
  const std::string lines = Lines();
  EXPECT_THAT(lines,
              ContainsRegex("INFO penstock.access: call method=/inference.GRPCInferenceService/"
                            "ModelInfer status=OK model=m version=1 request_id=r-1 "
                            "duration_ms=[0-9.]+ received_bytes=[0-9]+ sent_bytes=[0-9]+ "
                            "peer=unix:\n"));
  EXPECT_THAT(lines, HasSubstr(StrCat("received_bytes=", message.size() + 5)));
  EXPECT_THAT(lines, Not(HasSubstr("KEY")));
}

TEST_F(AccessLogOfATransport, FailedAndCancelledCallsSayHowTheyEnded) {
  Http2Client& client = harness_.Connect();
  const int32_t id = client.Call(kInfer, RowRequest({1.0F}, "nobody"));
  harness_.Await(client, id);
  const int32_t left = client.Call(kStreamInfer, "", /*ends=*/false, {{"x-request-id", "x-9"}});
  harness_.Settle();
  client.Reset(left);
  harness_.Settle();
  const std::string lines = Lines();
  EXPECT_THAT(lines, HasSubstr("ModelInfer status=NOT_FOUND model=nobody "));
  EXPECT_THAT(lines, HasSubstr("ModelStreamInfer status=CANCELLED request_id=x-9 "));
}

TEST_F(AccessLogOfATransport, CallThatPythonAnswersNamesItsModel) {
  Http2Client& client = harness_.Connect();
  const std::string path = "/inference.GRPCInferenceService/RepositoryModelUnload";
  const int32_t id = client.Call(path, Framed("\x12\x03xyz"));  // model_name = 2
  CallEvent started = harness_.NextEvent();
  started.call->Read();
  harness_.NextEvent();
  started.call->End(NotFound("no such model"), {});
  harness_.Await(client, id);
  EXPECT_THAT(Lines(), HasSubstr("RepositoryModelUnload status=NOT_FOUND model=xyz "));
}

TEST_F(AccessLogOfATransport, CallThatItsHeadersRefuseIsALine) {
  Http2Client& client = harness_.Connect();
  const int32_t id = client.Call(kInfer, "", true, {{"grpc-timeout", "soon"}});
  harness_.Await(client, id);
  EXPECT_THAT(Lines(), HasSubstr("ModelInfer status=INTERNAL "));
}

TEST(AccessLog, WithoutItNothingIsKept) {
  TransportHarness harness;
  EXPECT_EQ(harness.io->access_log(), nullptr);
}

TEST(AccessLog, WhatIsTooMuchIsDroppedCountedAndSaid) {
  AccessLog log(Clock::System(), /*capacity=*/2);
  for (int i = 0; i < 5; ++i) log.Push(Record("m"));
  EXPECT_EQ(log.dropped(), 3U);
  testing::internal::CaptureStderr();
  log.Start();
  log.Stop();
  const std::string lines = testing::internal::GetCapturedStderr();
  EXPECT_THAT(lines, HasSubstr("WARNING penstock.access: 3 calls are not in the access log"));
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 3);
}

TEST(AccessLog, TextOfAnyBytesIsOneLineOfJson) {
  SetLogging({.format = LogFormat::kJson});
  std::string line;
  AppendAccessLine(Record(std::string("a\n\"\xff", 4) + std::string(500, 'x')), &line);
  SetLogging({});
  EXPECT_THAT(line, HasSubstr("\"model\":\"a\\u000a\\\"\xEF\xBF\xBDx"));
  EXPECT_THAT(line, HasSubstr("\"duration_ms\":1.500,"));
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  EXPECT_LT(line.size(), 500U);
}

}  // namespace
}  // namespace penstock
