#include "native/lasting_thread.h"

#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/thread.h"

namespace penstock::loadgen {

struct LastingThread::Worker {
  Mutex mu;
  CondVar changed;
  std::function<void()> work GUARDED_BY(mu);  // to be begun
  bool is_busy GUARDED_BY(mu) = false;
  Thread thread;
};

struct LastingThread::Pool {
  Mutex mu;
  std::vector<std::unique_ptr<Worker>> idle GUARDED_BY(mu);
};

LastingThread::Pool& LastingThread::pool() {
  // Never destroyed: its threads would have to end.
  static Pool* const made = std::make_unique<Pool>().release();
  return *made;
}

LastingThread::LastingThread() = default;
LastingThread::LastingThread(LastingThread&&) noexcept = default;
LastingThread& LastingThread::operator=(LastingThread&&) noexcept = default;
LastingThread::~LastingThread() { Join(); }

LastingThread::LastingThread(std::function<void()> work) {
  {
    Pool& idle = pool();
    const MutexLock lock(idle.mu);
    if (!idle.idle.empty()) {
      worker_ = std::move(idle.idle.back());
      idle.idle.pop_back();
    }
  }
  if (worker_ == nullptr) {
    worker_ = std::make_unique<Worker>();
    worker_->thread = Thread("ps-loadgen", [worker = worker_.get()] { Serve(worker); });
  }
  const MutexLock lock(worker_->mu);
  worker_->work = std::move(work);
  worker_->is_busy = true;
  worker_->changed.NotifyAll();
}

void LastingThread::Join() {
  if (worker_ == nullptr) return;
  {
    const MutexLock lock(worker_->mu);
    while (worker_->is_busy) worker_->changed.Wait(worker_->mu);
  }
  Pool& idle = pool();
  const MutexLock lock(idle.mu);
  idle.idle.push_back(std::move(worker_));
}

void LastingThread::Serve(Worker* worker) noexcept {
  while (true) {
    std::function<void()> work;
    {
      const MutexLock lock(worker->mu);
      while (worker->work == nullptr) worker->changed.Wait(worker->mu);
      work = std::exchange(worker->work, nullptr);
    }
    work();
    work = nullptr;  // what it holds is gone when Join returns
    const MutexLock lock(worker->mu);
    worker->is_busy = false;
    worker->changed.NotifyAll();
  }
}

}  // namespace penstock::loadgen
