#include "load/fleet.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <ctime>
#include <utility>

#include "base/clock.h"

namespace penstock::load {
namespace {

constexpr int64_t kLongestPollNs = 3600 * kNsPerS;

}  // namespace

Result<std::unique_ptr<Fleet>> Fleet::Connect(FleetOptions options, Sink* sink) {
  if (options.connections == 0) return InvalidArgument("at least one connection is needed");
  std::unique_ptr<Fleet> fleet(new Fleet(std::move(options), sink));
  for (size_t slot = 0; slot < fleet->slots_.size(); ++slot) {
    PENSTOCK_RETURN_IF_ERROR(fleet->Fill(slot));
  }
  fleet->reconnects_ = 0;
  return fleet;
}

Fleet::Fleet(FleetOptions options, Sink* sink)
    : options_(std::move(options)),
      sink_(sink),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      slots_(options_.connections),
      lanes_(is_streaming() ? options_.streams : options_.connections) {
  assert(epoll_ >= 0);
  for (size_t i = 0; i < lanes_.size(); ++i) lanes_[i].slot = i % slots_.size();
}

Fleet::~Fleet() {
  slots_.clear();
  leaving_.clear();
  close(epoll_);
}

Status Fleet::Send(Message message) {
  Status status;
  for (size_t tries = 0; tries < lanes_.size(); ++tries) {
    status = SendOn(NextLane(), &message);
    if (status.ok()) return status;
  }
  return status;
}

// The first lane, from the cursor on, that has no more under way than the average.
uint32_t Fleet::NextLane() {
  const size_t fair = in_flight_ / lanes_.size();
  do {
    cursor_ = cursor_ + 1 == lanes_.size() ? 0 : cursor_ + 1;
  } while (lanes_[cursor_].in_flight > fair);
  return static_cast<uint32_t>(cursor_);
}

Status Fleet::SendOn(uint32_t number, Message* message) {
  Lane& lane = lanes_[number];
  Connection::Call* call = lane.call;
  if (call == nullptr) {
    auto& connection = slots_[lane.slot];
    if (connection != nullptr && !connection->is_usable()) {
      leaving_.push_back(std::move(connection));
    }
    if (connection == nullptr) PENSTOCK_RETURN_IF_ERROR(Fill(lane.slot));
    lane.connection = connection.get();
    call = connection->Open(number, is_streaming());
    if (is_streaming()) lane.call = call;
  }
  ++lane.in_flight;
  ++in_flight_;
  MarkDirty(lane.connection);
  lane.connection->Send(call, std::move(*message));
  return Status::Ok();
}

Status Fleet::Fill(size_t slot) {
  auto connected = Connection::Connect(options_.target, this);
  if (!connected.ok()) return connected.status();
  slots_[slot] = *std::move(connected);
  ++reconnects_;
  Watch(slots_[slot].get(), true, false);
  MarkDirty(slots_[slot].get());
  return Status::Ok();
}

void Fleet::Poll(int64_t timeout_ns) {
  const size_t before = in_flight_;
  Flush();
  if (in_flight_ != before) timeout_ns = 0;  // calls that ended as they were written
  timeout_ns = std::clamp<int64_t>(timeout_ns, 0, kLongestPollNs);
  const timespec timeout{timeout_ns / kNsPerS, timeout_ns % kNsPerS};
  std::array<epoll_event, 256> events;
  const int count =
      epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &timeout, nullptr);
  assert(count >= 0 || errno == EINTR);
  for (int i = 0; i < count; ++i) {
    auto* connection = static_cast<Connection*>(events[i].data.ptr);
    if (connection == nullptr) continue;  // WatchAlso's
    const bool can_read = (events[i].events & ~uint32_t{EPOLLOUT}) != 0;
    if (can_read && !connection->Read()) {
      Lose(connection);
    } else {
      MarkDirty(connection);
    }
  }
}

void Fleet::WatchAlso(int fd) {
  epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
  [[maybe_unused]] const int failed = epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  assert(failed == 0);
}

void Fleet::MarkDirty(Connection* connection) {
  if (dirty_.empty() || dirty_.back() != connection) dirty_.push_back(connection);
}

void Fleet::Flush() {
  std::sort(dirty_.begin(), dirty_.end());
  dirty_.erase(std::unique(dirty_.begin(), dirty_.end()), dirty_.end());
  for (Connection* connection : std::exchange(dirty_, {})) {
    const bool was_blocked = connection->wants_to_write();
    const bool is_alive = connection->Write();
    const bool has_left = !connection->is_usable() && connection->open_calls() == 0;
    if (!is_alive || has_left) {
      Lose(connection);
    } else if (connection->wants_to_write() != was_blocked) {
      Watch(connection, false, !was_blocked);
    }
  }
}

void Fleet::Watch(Connection* connection, bool is_new, bool for_writing) {
  epoll_event event{.events = EPOLLIN, .data = {.ptr = connection}};
  if (for_writing) event.events |= EPOLLOUT;
  [[maybe_unused]] const int failed =
      epoll_ctl(epoll_, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, connection->fd(), &event);
  assert(failed == 0);
}

void Fleet::Lose(Connection* connection) {
  for (Lane& lane : lanes_) {
    if (lane.connection != connection) continue;
    lane.connection = nullptr;
    lane.call = nullptr;
  }
  std::erase(dirty_, connection);
  connection->Abandon(Outcome::kConnectionLost, "the server closed the connection");
  for (auto& slot : slots_) {
    if (slot.get() == connection) slot.reset();
  }
  std::erase_if(leaving_, [&](const auto& other) { return other.get() == connection; });
}

void Fleet::Abandon(Outcome outcome, std::string_view text) {
  std::vector<Connection*> all;
  for (const auto& connection : slots_) all.push_back(connection.get());
  for (const auto& connection : leaving_) all.push_back(connection.get());
  for (Connection* connection : all) {
    if (connection == nullptr) continue;
    connection->Abandon(outcome, text);
    Lose(connection);
  }
}

void Fleet::OnAnswer(uint32_t lane, uint64_t token, const Answer& answer) {
  --lanes_[lane].in_flight;
  --in_flight_;
  sink_->OnAnswer(token, answer);
}

void Fleet::OnCallEnded(uint32_t lane) { lanes_[lane].call = nullptr; }

}  // namespace penstock::load
