#include "engine_bench.h"

#include <optional>
#include <utility>

#include "base/splitmix.h"
#include "open_engine.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/thread_pool.h"
#include "samples.h"

namespace coppice::tools {
namespace {

// Adds up what a run's requests needed.
class Ledger : public Observer {
 public:
  void on_finish(const Result& result, std::string_view) override {
    rows_ += result.usage.evaluated_tokens;
    generated_ += result.usage.completion_tokens;
    if (result.error && !error_) error_ = result.error;
  }
  int64_t rows() const { return rows_; }
  int64_t generated() const { return generated_; }
  const std::optional<Error>& error() const { return error_; }

 private:
  int64_t rows_ = 0, generated_ = 0;
  std::optional<Error> error_;
};

}  // namespace

Expected<std::unique_ptr<EngineBench>> EngineBench::open(const EngineOptions& options) {
  TRY(std::unique_ptr<Engine> engine, open_engine(options));
  return std::unique_ptr<EngineBench>(new EngineBench(std::move(engine)));
}

std::vector<TokenId> EngineBench::random_tokens(int64_t count) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  for (TokenId& token : tokens) {
    token = static_cast<TokenId>(splitmix(random_ += kGoldenGamma) %
                                 static_cast<uint64_t>(info().vocab_size));
  }
  return tokens;
}

std::vector<TokenId> EngineBench::different_tokens(int64_t count) {
  std::vector<TokenId> tokens = random_tokens(1);
  while (static_cast<int64_t>(tokens.size()) < count) {
    tokens.push_back(static_cast<TokenId>((tokens.back() + 1) % info().vocab_size));
  }
  return tokens;
}

Expected<double> EngineBench::run(std::vector<Job> jobs, std::optional<int64_t> rows,
                                  const std::function<void()>& before_step) {
  const auto ledger = std::make_shared<Ledger>();
  int64_t wanted = 0;
  const Stopwatch clock;
  for (Job& job : jobs) {
    Request request;
    request.prompt = std::move(job.prompt);
    request.cache_salt = std::move(job.salt);
    request.sampling.max_tokens = job.generate;
    request.sampling.ignore_eos = true;
    request.kv_tier = job.tier;
    request.boundaries = std::move(job.boundaries);
    wanted += job.generate;
    TRY(const RequestId id, engine_->submit(std::move(request), ledger));
    static_cast<void>(id);
  }
  engine_->run([&] {
    if (before_step) before_step();
    return interrupt_.came();
  });
  const double seconds = clock.seconds();
  TRY_STATUS(Interrupt::check());
  if (ledger->error()) return fail(*ledger->error());
  const int64_t expected = rows.value_or(ledger->rows());
  if (ledger->rows() != expected || ledger->generated() != wanted) {
    return fail(ErrorCode::kTooLarge,
                "a run evaluated " + std::to_string(ledger->rows()) + " rows and generated " +
                    std::to_string(ledger->generated()) + " tokens where it takes " +
                    std::to_string(expected) + " and " + std::to_string(wanted) +
                    ": keys and values were given up on the way; --kv-budget is too small");
  }
  return seconds;
}

Status EngineBench::fits(const std::string& what, const std::string& flags, int64_t longest,
                         int64_t tokens) const {
  if (longest > info().ctx) {
    return fail(ErrorCode::kInvalidArgument, flags + ": " + what + " makes sequences of " +
                                                 std::to_string(longest) + " tokens; --ctx is " +
                                                 std::to_string(info().ctx));
  }
  const int64_t bytes = tokens * engine_->stats().bytes_per_token;
  if (bytes <= info().kv_budget) return {};
  return fail(ErrorCode::kTooLarge, what + " holds " + format_size(bytes) +
                                        " of keys and values; --kv-budget is " +
                                        format_size(info().kv_budget));
}

nlohmann::ordered_json machine_json(const ModelFlags& flags, const EngineOptions& options,
                                    const EngineInfo& info) {
  const auto isa = ops::cpu::choose_isa(options.isa);
  return {{"model", options.model},
          {"weight_bytes", info.weight_bytes},
          {"kv_type", flags.kv_type},
          {"attention", flags.attention},
          {"threads", options.threads == 0 ? ops::cpu::physical_cores() : options.threads},
          {"isa", isa ? ops::cpu::isa_name(*isa) : options.isa}};
}

}  // namespace coppice::tools
