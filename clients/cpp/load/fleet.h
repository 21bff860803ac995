// Fleet: connections to one server, and who sends what on which of them.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "load/connection.h"

namespace penstock::load {

struct FleetOptions {
  Target target;
  size_t connections = 1;
  // 0 = unary calls. Otherwise that many streams, spread over the connections, opened when first
  // needed and again when they have ended.
  size_t streams = 0;
};

// Each message goes where the fewest are under way. A connection that is lost, or that the server
// wants to be rid of, is replaced when the next message needs it.
//
// Threading: confined to one thread.
// Ownership: owns the connections; borrows the sink.
// Blocking: Connect, and Send where it must reconnect; Poll, as long as it is told to.
class Fleet final : private AnswerSink {
 public:
  class Sink {
   public:
    virtual ~Sink() = default;
    // Exactly once for every message that Send took, from within the fleet, which it must not call.
    virtual void OnAnswer(uint64_t token, const Answer& answer) = 0;
  };

  // Opens every connection.
  static Result<std::unique_ptr<Fleet>> Connect(FleetOptions options, Sink* sink);
  ~Fleet() override;

  // Sent with the next Poll. Fails, and has taken nothing, where no connection can be had.
  Status Send(Message message);

  // Sends, waits until something arrives or `timeout_ns` have passed, and takes what has come.
  void Poll(int64_t timeout_ns);
  // Poll also returns when this is readable. Borrowed. Before the first Poll.
  void WatchAlso(int fd);

  // Gives every message without an answer this one, and closes the connections.
  void Abandon(Outcome outcome, std::string_view text);

  size_t in_flight() const { return in_flight_; }
  uint64_t reconnects() const { return reconnects_; }

 private:
  // A place that takes messages: a connection, or a stream on one.
  struct Lane {
    size_t slot = 0;
    Connection* connection = nullptr;  // of `call`
    Connection::Call* call = nullptr;  // a stream that is open
    size_t in_flight = 0;
  };

  Fleet(FleetOptions options, Sink* sink);

  void OnAnswer(uint32_t lane, uint64_t token, const Answer& answer) override;
  void OnCallEnded(uint32_t lane) override;

  bool is_streaming() const { return options_.streams > 0; }
  uint32_t NextLane();
  Status SendOn(uint32_t lane, Message* message);
  Status Fill(size_t slot);
  void MarkDirty(Connection* connection);
  void Flush();
  void Watch(Connection* connection, bool is_new, bool for_writing);
  void Lose(Connection* connection);

  const FleetOptions options_;
  Sink* const sink_;
  const int epoll_;
  std::vector<std::unique_ptr<Connection>> slots_;
  std::vector<std::unique_ptr<Connection>> leaving_;  // finish what is on them
  std::vector<Lane> lanes_;
  std::vector<Connection*> dirty_;  // to be written
  size_t cursor_ = 0;               // where NextLane goes on
  size_t in_flight_ = 0;
  uint64_t reconnects_ = 0;
};

}  // namespace penstock::load
