// A worker that does what its first argument says: an honest echo, or one kind of trouble.

#include <fcntl.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>

#include "worker/messages.h"
#include "worker/process.h"

namespace {

using penstock::WorkerPacket;
using penstock::WorkerPacketKind;

struct Mapping {
  uint8_t* data = nullptr;
  size_t size = 0;
};

std::map<uint32_t, Mapping> g_slabs;
uint32_t g_outputs = 0;

void HoldLifeline() {
  fcntl(penstock::kWorkerLifelineFd, F_SETOWN, -getpgrp());
  fcntl(penstock::kWorkerLifelineFd, F_SETSIG, SIGKILL);
  fcntl(penstock::kWorkerLifelineFd, F_SETFL, O_ASYNC);
}

bool Receive(WorkerPacket* packet) {
  iovec part{packet, sizeof(*packet)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  if (recvmsg(penstock::kWorkerSocketFd, &message, 0) != sizeof(*packet)) return false;
  if (packet->kind != WorkerPacketKind::kMap) return true;
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
  void* data = mmap(nullptr, packet->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  g_slabs[packet->slab] = {static_cast<uint8_t*>(data), packet->size};
  if ((packet->value & penstock::kMapForOutputs) != 0) g_outputs = packet->slab;
  return true;
}

void Send(const void* data, size_t size) {
  if (send(penstock::kWorkerSocketFd, data, size, MSG_NOSIGNAL) < 0) exit(9);
}

void SendPacket(WorkerPacketKind kind, uint64_t batch = 0, uint64_t offset = 0, uint64_t size = 0) {
  const WorkerPacket packet{
      .kind = kind, .slab = g_outputs, .batch = batch, .offset = offset, .size = size};
  Send(&packet, sizeof(packet));
}

template <typename T>
void Put(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void SendBody(WorkerPacketKind kind, const std::string& body, uint64_t batch = 0) {
  std::memcpy(g_slabs[g_outputs].data, body.data(), body.size());
  SendPacket(kind, batch, 0, body.size());
}

void Describe(std::string_view mode) {
  std::string body;
  const uint32_t flags = mode == "streams" ? 1 : 0;  // decoupled
  for (const uint32_t number : {flags, 0xffffffffU, 1U, 1U}) Put(number, &body);
  for (const std::string_view name : {"INPUT0", "OUTPUT0"}) {
    const uint32_t dtype = mode == "bytes" ? 14 : 12;
    for (const uint32_t number : {dtype, 0U, 1U, 6U + (name == "OUTPUT0")}) Put(number, &body);
    Put(int64_t{-1}, &body);
    body += name;
  }
  if (mode == "bad_signature") body.resize(body.size() - 3);
  SendBody(WorkerPacketKind::kDescribed, body);
}

// What an answer says, to be made wrong.
struct Answer {
  uint32_t results = 1;
  uint32_t code = 0;
  uint32_t outputs = 1;
  uint32_t dtype = 12;
  uint32_t rank = 1;
  uint64_t offset = 4096;
  uint64_t size = 0;
  int64_t dim = 0;
};

std::string Encode(const Answer& answer) {
  std::string body;
  Put(answer.results, &body);
  for (const uint32_t number : {answer.code, 0U, answer.outputs, 0U, answer.dtype, answer.rank}) {
    Put(number, &body);
  }
  Put(answer.offset, &body);
  Put(answer.size, &body);
  Put(answer.dim, &body);
  return body;
}

// The first input of a RUN: its bytes.
Mapping FirstInput(const WorkerPacket& run) {
  const uint8_t* body = g_slabs[run.slab].data + run.offset;
  uint32_t slab = 0;
  uint64_t place[2];  // offset, size
  std::memcpy(&slab, body + 12 + 8, sizeof(slab));
  std::memcpy(place, body + 12 + 16, sizeof(place));
  return {g_slabs[slab].data + place[0], place[1]};
}

void Break(std::string_view mode, Answer* answer) {
  if (mode == "wrong_count") answer->results = 2;
  if (mode == "wrong_code") answer->code = 99;
  if (mode == "many_outputs") answer->outputs = 0xffffffff;
  if (mode == "wrong_dtype") answer->dtype = 77;
  if (mode == "wrong_rank") answer->rank = 1000;
  if (mode == "offset_outside") answer->offset = uint64_t{1} << 62;
  if (mode == "size_outside") answer->size = ~uint64_t{0} - 100;
  if (mode == "size_of_another_shape") answer->dim += 1;
  if (mode == "negative_dim") answer->dim = -1;
  if (mode == "huge_dim") answer->dim = int64_t{1} << 62;
}

void Misbehave(std::string_view mode, const WorkerPacket& run) {
  if (mode == "exits") exit(7);
  if (mode == "crashes") {
    signal(SIGSEGV, SIG_DFL);  // a sanitizer would make an exit of it
    raise(SIGSEGV);
  }
  if (mode == "hangs") {
    for (;;) pause();
  }
  if (mode == "closes") {
    close(penstock::kWorkerSocketFd);
    for (;;) pause();
  }
  if (mode == "short_packet") Send("short", 5);
  if (mode == "unknown_packet") SendPacket(static_cast<WorkerPacketKind>(4711));
  if (mode == "ready_again") SendPacket(WorkerPacketKind::kReady);
  if (mode == "wrong_batch") SendPacket(WorkerPacketKind::kDone, run.batch + 1, 0, 4);
  if (mode == "body_outside") SendPacket(WorkerPacketKind::kDone, run.batch, 1 << 30, 100);
  if (mode == "grows_too_far") SendPacket(WorkerPacketKind::kGrow, 0, 0, uint64_t{1} << 50);
  if (mode == "dies_in_body") {
    SendPacket(WorkerPacketKind::kDone, run.batch, 0, 3);
    exit(8);
  }
  if (mode == "grows_for_ever") {
    WorkerPacket answer;
    for (;;) {
      SendPacket(WorkerPacketKind::kGrow, 0, 0, 8192);
      if (!Receive(&answer)) exit(0);
    }
  }
}

// A response of no rows to the first request of a batch, its last.
void Respond(const WorkerPacket& run) {
  const std::string body = Encode({});
  std::memcpy(g_slabs[g_outputs].data, body.data(), body.size());
  const WorkerPacket packet{.kind = WorkerPacketKind::kResponse,
                            .slab = g_outputs,
                            .batch = run.batch,
                            .value = 1,
                            .size = body.size()};
  Send(&packet, sizeof(packet));
}

void Run(std::string_view mode, const WorkerPacket& run) {
  if (mode == "streams") return Respond(run);
  g_outputs = run.value;
  Misbehave(mode, run);
  const Mapping input = FirstInput(run);
  if (g_slabs[g_outputs].size < 4096 + input.size) {
    WorkerPacket answer;
    SendPacket(WorkerPacketKind::kGrow, 0, 0, 4096 + input.size);
    const uint32_t before = g_outputs;
    while (g_outputs == before && Receive(&answer)) {
    }
  }
  Answer answer;
  answer.size = input.size;
  answer.dim = static_cast<int64_t>(input.size / sizeof(float));
  if (mode == "bytes") answer.dtype = 14, answer.dim = 2;
  std::memcpy(g_slabs[g_outputs].data + answer.offset, input.data, input.size);
  Break(mode, &answer);
  SendBody(WorkerPacketKind::kDone, Encode(answer), run.batch);
}

void Serve(std::string_view mode) {
  WorkerPacket packet;
  while (Receive(&packet)) {
    if (packet.kind == WorkerPacketKind::kStart && mode != "never_ready") {
      SendPacket(WorkerPacketKind::kReady);
    }
    if (packet.kind == WorkerPacketKind::kRun) Run(mode, packet);
  }
}

void Flood() {
  const std::string line(1000, 'x');
  for (int i = 0; i < 30'000; ++i) std::puts(line.c_str());
  std::puts("the last line");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "echo";
  HoldLifeline();
  if (mode == "exits_at_start") return 3;
  if (mode == "complains_at_start") {
    std::puts("starting\n<3>libmissing.so: not found\n");
    std::fflush(stdout);
    return 127;
  }
  if (mode == "complains_and_crashes") {
    std::puts("a line of whatever");
    std::fflush(stdout);
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
  }
  WorkerPacket packet;
  if (!Receive(&packet)) return 1;
  if (mode == "never_describes") {
    for (;;) pause();
  }
  if (mode == "fails_for_ever") {
    for (;;) SendBody(WorkerPacketKind::kFailed, "ValueError: no weights");
  }
  if (mode == "grows_and_reads_nothing") {
    for (;;) SendPacket(WorkerPacketKind::kGrow, 0, 0, 8192);
  }
  if (mode == "fails") {
    SendBody(WorkerPacketKind::kFailed, "ValueError: no weights");
    return 1;
  }
  if (mode == "prints") std::puts("<4>a warning\nplain"), std::fflush(stdout);
  if (mode == "floods") Flood();
  Describe(mode);
  Serve(mode);
  return 0;
}
