// What a connection does because time has passed.

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "transport/connection.h"
#include "transport/io_thread.h"

namespace penstock {
namespace {

constexpr int64_t kHandshakeNs = 20 * kNsPerS;  // also for the client's preface
// For so long a large reply may be read from where its batch left it. That is the whole batch's
// memory, where the rest of the reply is all that the client waits for.
constexpr int64_t kSlowReaderNs = kNsPerS;

}  // namespace

void Connection::SetDue(int64_t when_ns) {
  due_ns_ = std::min(due_ns_, when_ns);
  io_.SetTimer(due_ns_);
}

void Connection::OnTimer(int64_t now_ns) {
  due_ns_ = kNever;
  if (is_closed_) return;
  if (linger_until_ns_ != 0) return now_ns < linger_until_ns_ ? SetDue(linger_until_ns_) : Close();
  if (!has_begun_) {
    if (now_ns >= opened_ns_ + kHandshakeNs) {
      Close();
      return;
    }
    SetDue(opened_ns_ + kHandshakeNs);
  }
  CheckDeadlines(now_ns);
  CheckSlowReader(now_ns);
  CheckAgeAndIdle(now_ns);
  if (!is_closed_) CheckKeepalive(now_ns);
}

void Connection::CheckDeadlines(int64_t now_ns) {
  if (next_deadline_ns_ <= now_ns) {
    next_deadline_ns_ = kNever;
    Call* call = calls_;
    while (call != nullptr) {
      Call* const next = call->next;
      if (call->deadline_ns() <= now_ns) {
        call->OnDeadline();
        io_.MarkDirty(this);
      } else {
        next_deadline_ns_ = std::min(next_deadline_ns_, call->deadline_ns());
      }
      call = next;
    }
  }
  if (next_deadline_ns_ != kNever) SetDue(next_deadline_ns_);
}

// The first look comes with the first reply that is not read at once; by the second one such replies
// are copied out of their batches.
void Connection::CheckSlowReader(int64_t now_ns) {
  if (slow_due_ns_ == kNever) return;
  if (now_ns >= slow_due_ns_) {
    slow_due_ns_ = kNever;
    const int64_t begun_before_ns = now_ns - kSlowReaderNs;
    out_.CopyOut(begun_before_ns);
    for (Call* call = calls_; call != nullptr; call = call->next) call->CopyOut(begun_before_ns);
    WatchForSlowReader();
  }
  if (slow_due_ns_ != kNever) SetDue(slow_due_ns_);
}

void Connection::WatchForSlowReader() {
  if (slow_due_ns_ != kNever || (out_.empty() && unsent_messages_ == 0)) return;
  slow_due_ns_ = io_.now_ns() + kSlowReaderNs;
  SetDue(slow_due_ns_);
}

void Connection::CheckAgeAndIdle(int64_t now_ns) {
  if (now_ns >= end_ns_) {
    Close();
    return;
  }
  if (end_ns_ != kNever) SetDue(end_ns_);
  if (is_draining_ && is_handshaking_) {
    if (now_ns >= drain_ns_ + kDrainHandshakeNs) return Close();
    return SetDue(drain_ns_ + kDrainHandshakeNs);
  }
  if (is_draining_) {
    if (has_said_goaway_) return;
    if (now_ns < drain_ns_ + kGoawayNs) {
      SetDue(drain_ns_ + kGoawayNs);
    } else {
      SayGoaway(NGHTTP2_NO_ERROR, {});
    }
    return;
  }
  // Whether something is over that may last for `limit_ns`.
  const auto is_over = [&](int64_t since_ns, int64_t limit_ns) {
    if (limit_ns != 0 && now_ns < since_ns + limit_ns) SetDue(since_ns + limit_ns);
    return limit_ns != 0 && now_ns >= since_ns + limit_ns;
  };
  const bool is_of_age = is_over(opened_ns_, max_age_ns_);
  const bool is_idle =
      calls_ == nullptr && is_over(idle_since_ns_, io_.options().max_connection_idle_ns);
  if (is_of_age || is_idle) Drain();
}

void Connection::CheckKeepalive(int64_t now_ns) {
  const TransportOptions& options = io_.options();
  if (ping_sent_ns_ != 0) {
    const int64_t end_ns = ping_sent_ns_ + options.keepalive_timeout_ns;
    if (last_read_ns_ > ping_sent_ns_) {
      ping_sent_ns_ = 0;  // whatever came says as much as the answer
    } else if (now_ns >= end_ns) {
      Close();
      return;
    } else {
      SetDue(end_ns);
      return;
    }
  }
  const int64_t ping_ns = last_read_ns_ + options.keepalive_time_ns;
  if (now_ns < ping_ns) {
    SetDue(ping_ns);
    return;
  }
  ping_sent_ns_ = now_ns;
  nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
  SetDue(now_ns + options.keepalive_timeout_ns);
  io_.MarkDirty(this);
}

}  // namespace penstock
