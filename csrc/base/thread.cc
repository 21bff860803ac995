#include "base/thread.h"

#include <pthread.h>
#include <sys/prctl.h>

#include <utility>

namespace penstock {

Thread::Thread(std::string name, std::function<void()> body)
    : thread_([name = std::move(name), body = std::move(body)]() noexcept {
        pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
        prctl(PR_SET_TIMERSLACK, 1UL);
        body();
      }) {}

void Thread::Join() {
  if (thread_.joinable()) thread_.join();
}

}  // namespace penstock
