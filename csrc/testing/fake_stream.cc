#include "testing/fake_stream.h"

#include <cerrno>
#include <thread>
#include <utility>

namespace penstock {

void FakeRecord::Set() {
  MutexLock lock(mu_);
  is_set_ = true;
  set_.NotifyAll();
}

bool FakeRecord::is_set() const {
  MutexLock lock(mu_);
  return is_set_;
}

void FakeRecord::Wait() {
  MutexLock lock(mu_);
  while (!is_set_) set_.Wait(mu_);
}

FakeStream::FakeStream(FakeDeviceState& state, uint64_t seed, int max_yields)
    : state_(state), max_yields_(max_yields), random_(seed), first_(new Node), last_(first_) {
  sem_init(&pushed_, 0, 0);
  thread_ = Thread("fake-stream", [this]() noexcept { Loop(); });
}

FakeStream::~FakeStream() {
  Push({.is_end = true});
  thread_.Join();
  delete first_;
  sem_destroy(&pushed_);
}

void FakeStream::Push(Item item) {
  auto* node = new Node{.item = std::move(item)};
  Node* before = std::exchange(last_, node);
  before->next.store(node, std::memory_order_release);
  sem_post(&pushed_);
}

void FakeStream::Loop() {
  for (bool goes_on = true; goes_on;) {
    while (sem_wait(&pushed_) != 0 && errno == EINTR) {
    }
    Node* node = first_->next.load(std::memory_order_acquire);
    delete std::exchange(first_, node);
    Item item = std::move(node->item);
    goes_on = Do(item);
  }
}

bool FakeStream::Do(Item& item) {
  AwaitRelease();
  if (item.wait != nullptr) item.wait->Wait();
  if (item.run) Work(item.run);
  if (item.release) item.release();
  if (item.set != nullptr) item.set->Set();
  return !item.is_end;
}

void FakeStream::Work(const std::function<gpu::Error()>& run) {
  const int yields = max_yields_ > 0 ? static_cast<int>(random_() % (max_yields_ + 1)) : 0;
  for (int i = 0; i < yields; ++i) std::this_thread::yield();
  constexpr auto kRelaxed = std::memory_order_relaxed;
  if (state_.fault.load(kRelaxed) != 0) return;
  auto error = gpu::Error::kSuccess;
  if (state_.work_left.load(kRelaxed) >= 0 && state_.work_left.fetch_sub(1, kRelaxed) == 0) {
    error = static_cast<gpu::Error>(state_.fault_to_come.load(kRelaxed));
  } else {
    error = run();
  }
  int none = 0;
  if (gpu::IsSticky(error)) {
    state_.fault.compare_exchange_strong(none, static_cast<int>(error), kRelaxed);
  }
}

void FakeStream::AwaitRelease() {
  if (!state_.is_held.load(std::memory_order_relaxed)) return;
  MutexLock lock(state_.hold_mu);
  while (state_.is_held.load(std::memory_order_relaxed)) state_.released.Wait(state_.hold_mu);
}

}  // namespace penstock
