#include "testing/repeat_model.h"

#include <atomic>
#include <cstring>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/strcat.h"
#include "base/thread.h"

namespace penstock {
namespace {

// The values of the input that is `index` in the signature.
template <typename T>
std::vector<T> ValuesOf(std::span<const BatchInput> inputs, size_t index) {
  TensorView tensor;
  for (const BatchInput& input : inputs) {
    if (input.index == index) tensor = input.tensor;
  }
  std::vector<T> values(tensor.data.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), tensor.data.data(), values.size() * sizeof(T));
  return values;
}

BatchOutput OneNumber(size_t index, DataType dtype, uint32_t value) {
  BatchOutput output{index, dtype, {1}, HostPool::Shared().Allocate(sizeof(value))};
  std::memcpy(output.data.data(), &value, sizeof(value));
  return output;
}

// What one request is answered with.
struct Job {
  std::shared_ptr<ResponseSender> sender;
  bool has_index = false;           // IDX is an output
  size_t count = 0;                 // responses
  std::vector<int32_t> values;      // one for each, or one for all
  std::vector<uint32_t> delays_ms;  // before each; may be empty
  size_t next = 0;                  // the response to be sent
  int64_t due_ns = 0;               // not before then
  enum class Told { kArming, kArmed, kTold };
  std::atomic<Told> told{Told::kArming};  // of room, see AwaitRoom
};
using JobRef = std::shared_ptr<Job>;

// Sends what jobs have to send, when it is due and there is room for it. A job is in one place at a
// time: with the thread that sends, in the queue, or with its sender until there is room.
// Threading: thread-safe; owns the thread that waits for what is due.
class Repeater : public std::enable_shared_from_this<Repeater> {
 public:
  void Start() {
    thread_ = Thread("ps-repeat", [this] { Run(); });
  }
  void Stop() {
    {
      MutexLock lock(mu_);
      is_stopping_ = true;
      changed_.NotifyAll();
    }
    thread_.Join();
    MutexLock lock(mu_);
    queue_.clear();
  }

  void Begin(const JobRef& job) {
    job->due_ns = Clock::System().NowNs();
    job->sender->NotifyCancelled([self = shared_from_this(), job] { self->Hurry(job); });
    AddDelay(job.get());
    Send(job);
  }

 private:
  static void AddDelay(Job* job) {
    if (job->next < job->delays_ms.size()) job->due_ns += job->delays_ms[job->next] * kNsPerMs;
  }

  void Send(const JobRef& job) {
    do {
      while (job->next < job->count && job->sender->room() > 0) {
        if (job->sender->is_cancelled()) return job->sender->Finish(Status::Ok());
        if (job->due_ns > Clock::System().NowNs()) return Queue(job);
        if (!SendNext(job.get())) return job->sender->Finish(Status::Ok());
      }
      if (job->next == job->count || job->sender->is_cancelled()) {
        return job->sender->Finish(Status::Ok());
      }
    } while (AwaitRoom(job));
  }

  static bool SendNext(Job* job) {
    const int32_t value = job->values[job->values.size() == 1 ? 0 : job->next];
    std::vector<BatchOutput> outputs;
    outputs.reserve(2);
    outputs.push_back(OneNumber(0, DataType::kInt32, static_cast<uint32_t>(value)));
    if (job->has_index) {
      outputs.push_back(OneNumber(1, DataType::kUint32, static_cast<uint32_t>(job->next)));
    }
    if (!job->sender->Send(std::move(outputs)).ok()) return false;
    job->next += 1;
    AddDelay(job);
    return true;
  }

  // False: it goes on later, on the thread that brings the room. True: there is room now, though it
  // may be that thread's doing.
  bool AwaitRoom(const JobRef& job) {
    job->told.store(Job::Told::kArming);
    job->sender->NotifyRoom([self = shared_from_this(), job] {
      if (job->told.exchange(Job::Told::kTold) == Job::Told::kArmed) self->Send(job);
    });
    return job->told.exchange(Job::Told::kArmed) == Job::Told::kTold;
  }

  void Queue(const JobRef& job) {
    MutexLock lock(mu_);
    if (is_stopping_) return;  // the sender's end is the request's
    // Hurry may have come before this, and found nothing.
    queue_.emplace(job->sender->is_cancelled() ? 0 : job->due_ns, job);
    changed_.NotifyAll();
  }

  // A job that nobody waits for any more is due at once.
  void Hurry(const JobRef& job) {
    MutexLock lock(mu_);
    for (auto it = queue_.begin(); it != queue_.end(); ++it) {
      if (it->second != job) continue;
      queue_.erase(it);
      queue_.emplace(0, job);
      changed_.NotifyAll();
      return;
    }
  }

  void Run() noexcept {
    while (const JobRef job = NextDue()) Send(job);
  }

  JobRef NextDue() {
    MutexLock lock(mu_);
    while (!is_stopping_) {
      const int64_t due_ns = queue_.empty() ? kNever : queue_.begin()->first;
      if (due_ns <= Clock::System().NowNs()) {
        JobRef job = queue_.begin()->second;
        queue_.erase(queue_.begin());
        return job;
      }
      Clock::System().WaitUntil(changed_, mu_, due_ns);
    }
    return nullptr;
  }

  Mutex mu_;
  CondVar changed_;
  std::multimap<int64_t, JobRef> queue_ GUARDED_BY(mu_);  // by due_ns
  bool is_stopping_ GUARDED_BY(mu_) = false;
  Thread thread_;
};

void WaitMs(int64_t milliseconds) {
  const int64_t until_ns = Clock::System().NowNs() + milliseconds * kNsPerMs;
  Mutex mu;
  CondVar never;
  MutexLock lock(mu);
  while (Clock::System().NowNs() < until_ns) Clock::System().WaitUntil(never, mu, until_ns);
}

class RepeatInstance final : public BackendInstance {
 public:
  RepeatInstance(std::shared_ptr<Repeater> repeater, bool is_square)
      : repeater_(std::move(repeater)), is_square_(is_square) {}

  bool answers_requests() const override { return true; }
  Status Execute(std::span<const BatchInput>, std::span<const size_t>,
                 std::vector<BatchOutput>*) override {
    return Internal("answers requests one by one");
  }

  // One request at a time: there is no batch dimension.
  Status ExecuteRequests(std::span<const BatchInput> inputs,
                         std::span<const BatchRequest> requests) override {
    const auto job = std::make_shared<Job>();
    job->sender = requests[0].responses;
    job->values = ValuesOf<int32_t>(inputs, 0);
    if (is_square_) {
      job->count = job->values[0] < 1 ? 0 : static_cast<size_t>(job->values[0]);
      repeater_->Begin(job);
      return Status::Ok();
    }
    job->has_index = true;
    job->count = job->values.size();
    job->delays_ms = ValuesOf<uint32_t>(inputs, 1);
    if (job->delays_ms.size() != job->count) {
      return InvalidArgument(StrCat("expected IN and DELAY of one shape, got ", job->count, " and ",
                                    job->delays_ms.size(), " elements"));
    }
    repeater_->Begin(job);
    WaitMs(ValuesOf<uint32_t>(inputs, 2)[0]);
    return Status::Ok();
  }

 private:
  const std::shared_ptr<Repeater> repeater_;
  const bool is_square_;
};

class RepeatModel final : public BackendModel {
 public:
  explicit RepeatModel(bool is_square)
      : is_square_(is_square), repeater_(std::make_shared<Repeater>()) {
    signature_.inputs = {{"IN", DataType::kInt32, {is_square ? 1 : -1}}};
    signature_.outputs = {{"OUT", DataType::kInt32, {1}}};
    if (!is_square) {
      signature_.inputs.push_back({"DELAY", DataType::kUint32, {-1}});
      signature_.inputs.push_back({"WAIT", DataType::kUint32, {1}});
      signature_.outputs.push_back({"IDX", DataType::kUint32, {1}});
    }
    repeater_->Start();
  }
  ~RepeatModel() override { repeater_->Stop(); }
  RepeatModel(const RepeatModel&) = delete;
  RepeatModel& operator=(const RepeatModel&) = delete;

  const ModelSignature& signature() const override { return signature_; }
  Result<std::unique_ptr<BackendInstance>> CreateInstance(const InstanceOptions&) override {
    return std::unique_ptr<BackendInstance>(
        std::make_unique<RepeatInstance>(repeater_, is_square_));
  }

 private:
  const bool is_square_;
  const std::shared_ptr<Repeater> repeater_;
  ModelSignature signature_;
};

}  // namespace

std::unique_ptr<BackendModel> MakeRepeatModel() {
  return std::make_unique<RepeatModel>(/*is_square=*/false);
}

std::unique_ptr<BackendModel> MakeSquareModel() {
  return std::make_unique<RepeatModel>(/*is_square=*/true);
}

}  // namespace penstock
