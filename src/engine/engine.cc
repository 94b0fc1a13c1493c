#include "coppice/engine.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <future>
#include <random>
#include <thread>
#include <utility>

#include "base/check.h"
#include "engine/core.h"
#include "engine/inbox.h"
#include "engine/loader.h"

namespace coppice {
namespace {

using engine::Clock;
using engine::Core;

// Commands that the loop runs between steps.
using Command = std::function<void(Core&)>;
constexpr size_t kInboxCapacity = 1024;
constexpr auto kSnapshotInterval = std::chrono::milliseconds(250);
// How long an engine without rows to run may sleep: it wakes for the pins' time to live.
constexpr auto kIdleWait = kSnapshotInterval;

uint64_t drawn_seed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

}  // namespace

struct Engine::Impl {
  Impl(const EngineOptions& given, engine::Loaded loaded)
      : options(given),
        seed(given.seed ? *given.seed : drawn_seed()),
        limits(loaded.limits),
        tiers(std::move(loaded.tiers)),
        info(std::move(loaded.info)),
        core(std::move(loaded.parts), loaded.limits, loaded.partition),
        inbox(kInboxCapacity) {}

  double seconds() const { return std::chrono::duration<double>(Clock::now() - opened).count(); }
  bool threaded() const { return thread.joinable(); }

  // Runs f on whatever thread owns the core, and waits for what it returns.
  template <class F>
  auto on_core(F f) -> decltype(f(std::declval<Core&>())) {
    using Value = decltype(f(std::declval<Core&>()));
    if (!threaded()) return f(core);
    std::promise<Value> promise;
    std::future<Value> future = promise.get_future();
    inbox.urge([&promise, &f](Core& owned) {
      if constexpr (std::is_void_v<Value>) {
        f(owned);
        promise.set_value();
      } else {
        promise.set_value(f(owned));
      }
    });
    return future.get();
  }

  void loop();
  void publish();

  const EngineOptions options;
  const uint64_t seed;
  const engine::Limits limits;
  const engine::Tiers tiers;
  const EngineInfo info;
  const Clock::time_point opened = Clock::now();
  Core core;
  engine::Inbox<Command> inbox;
  std::atomic<RequestId> last_id{0};
  std::atomic<int64_t> submitted{0};  // choices
  mutable std::mutex snapshot_mutex;
  EngineStats snapshot;
  bool stop = false;  // the loop's own: set by a command
  std::thread thread;
};

void Engine::Impl::publish() {
  EngineStats now = core.stats();
  const std::lock_guard lock(snapshot_mutex);
  now.version = snapshot.version + 1;
  snapshot = now;
}

void Engine::Impl::loop() {
  std::vector<Command> commands;
  Clock::time_point published;
  while (!stop) {
    const Clock::time_point now = Clock::now();
    if (now - published >= kSnapshotInterval) {
      publish();
      published = now;
    }
    const bool rests = core.idle() || core.stalled();
    inbox.take(commands, rests ? published + kIdleWait - now : Clock::duration::zero());
    for (Command& command : commands) command(core);
    if (core.idle()) {
      core.tick(seconds());
    } else {
      core.step(seconds());
    }
  }
  core.cancel_all();
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Engine::~Engine() {
  if (impl_->threaded()) {
    impl_->inbox.urge([this](Core&) { impl_->stop = true; });
    impl_->thread.join();
  } else {
    impl_->core.cancel_all();
  }
}

Expected<std::unique_ptr<Engine>> Engine::open(const EngineOptions& options,
                                               const LoadCallback& progress) {
  TRY_STATUS(validate(options));
  TRY(std::unique_ptr<ops::Backend> backend, engine::backend_for(options));
  std::shared_ptr<ops::OpProfile> profile;
  if (options.profile) {
    profile = std::make_shared<ops::OpProfile>();
    backend = ops::profiled(std::move(backend), engine::plain_weights(options), profile);
  }
  TRY(engine::Loaded loaded, engine::load(options, std::move(backend), progress));
  loaded.parts.profile = std::move(profile);
  auto impl = std::make_unique<Impl>(options, std::move(loaded));
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Expected<RequestId> Engine::submit(Request request, std::shared_ptr<Observer> observer) {
  Impl& impl = *impl_;
  TRY_STATUS(validate(request.sampling));
  const int64_t choices = request.sampling.n;
  if (choices > impl.options.max_queued) {
    return fail(ErrorCode::kInvalidArgument, "n is " + std::to_string(choices) +
                                                 "; this engine takes up to --max-queued " +
                                                 std::to_string(impl.options.max_queued));
  }
  const int64_t unfinished = impl.submitted.load() - impl.core.finished();
  if (unfinished + choices > impl.options.max_queued) {
    return fail(ErrorCode::kOverloaded, std::to_string(unfinished) +
                                            " requests are unfinished; this engine takes " +
                                            std::to_string(impl.options.max_queued));
  }
  const RequestId id = ++impl.last_id;
  TRY(std::shared_ptr<const engine::Submission> submission,
      engine::prepare(std::move(request), std::move(observer), impl.core.parts(), impl.limits,
                      impl.tiers, impl.options.model, id, impl.seed));
  if (!impl.threaded()) {
    impl.core.submit(std::move(submission));
  } else if (!impl.inbox.push([submission](Core& core) { core.submit(submission); })) {
    return fail(ErrorCode::kOverloaded, "the engine's inbox is full; try again later");
  }
  impl.submitted += choices;
  return id;
}

void Engine::cancel(RequestId id) {
  if (impl_->threaded()) {
    impl_->inbox.urge([id](Core& core) { core.cancel(id); });
  } else {
    impl_->core.cancel(id);
  }
}

void Engine::start() {
  CHECK(!impl_->threaded());
  impl_->publish();
  impl_->thread = std::thread([impl = impl_.get()] { impl->loop(); });
}

void Engine::run(const std::function<bool()>& give_up) {
  CHECK(!impl_->threaded());
  bool more = true;
  while (more) {
    if (give_up && give_up()) return impl_->core.cancel_all();
    more = impl_->core.step(impl_->seconds());
    if (more && impl_->core.stalled()) std::this_thread::sleep_for(kIdleWait);
  }
}

Expected<PinInfo> Engine::pin(std::vector<TokenId> tokens, const std::string& cache_salt,
                              double ttl_seconds, std::optional<KvTier> asked,
                              const std::vector<TokenRange>& exact, KvThinning thinning) {
  if (tokens.empty()) return fail(ErrorCode::kInvalidArgument, "a pin needs at least one token");
  if (!(ttl_seconds >= 0.0)) {
    return fail(ErrorCode::kInvalidArgument, "ttl_seconds takes 0 (no end) or more");
  }
  TRY(const KvTier tier, engine::serve_tier(impl_->tiers, asked));
  if (tier != KvTier::kOff) TRY_STATUS(engine::mark_exact(exact, tokens));
  const kv::Scope scope =
      engine::scope_of(impl_->options.model, impl_->tiers, tier, cache_salt, thinning);
  return impl_->on_core([&](Core& core) {
    core.tick(impl_->seconds());
    return core.pin(scope, tokens, ttl_seconds);
  });
}

bool Engine::unpin(uint64_t pin) {
  return impl_->on_core([pin](Core& core) { return core.unpin(pin); });
}

void Engine::flush() {
  impl_->on_core([](Core& core) { core.flush(); });
}

Status Engine::set_budget(int64_t bytes) {
  return impl_->on_core([bytes](Core& core) { return core.set_budget(bytes); });
}

void Engine::reset_peak() {
  impl_->on_core([](Core& core) { core.reset_peak(); });
}

Profile Engine::profile() const {
  return impl_->on_core([](const Core& core) { return core.profile(); });
}

void Engine::reset_profile() {
  impl_->on_core([](Core& core) { core.reset_profile(); });
}

EngineStats Engine::stats() const {
  if (!impl_->threaded()) return impl_->core.stats();
  const std::lock_guard lock(impl_->snapshot_mutex);
  return impl_->snapshot;
}

const EngineInfo& Engine::info() const { return impl_->info; }
const text::Tokenizer& Engine::tokenizer() const { return *impl_->core.parts().tokenizer; }

}  // namespace coppice
