#include "generate.h"

#include <chrono>
#include <cstdio>
#include <limits>
#include <map>
#include <memory>
#include <utility>

#include "arguments.h"
#include "base/log.h"
#include "batch_file.h"
#include "coppice/engine.h"
#include "exit_code.h"
#include "interrupt.h"
#include "model_flags.h"
#include "open_engine.h"
#include "output_order.h"
#include "profile_report.h"
#include "progress.h"
#include "result_json.h"
#include "text/json.h"

namespace coppice::tools {
namespace {

using Clock = std::chrono::steady_clock;
using GiveUp = std::function<bool()>;

constexpr int32_t kMostTokens = 1 << 24;

struct GenerateFlags {
  ModelFlags model;
  std::string prompt, prompt_file, batch, system;
  bool chat = false;
  Request defaults;
};

void add_input_flags(CLI::App& app, GenerateFlags& f) {
  const std::string group = "Input (one of the first three)";
  app.add_option("-p,--prompt", f.prompt, "the prompt")->type_name("TEXT")->group(group);
  app.add_option("-f,--prompt-file,--file", f.prompt_file,
                 "file with the prompt; - is standard input")
      ->type_name("FILE")
      ->check(not_empty())
      ->group(group);
  app.add_option("--batch", f.batch,
                 "JSON lines {\"id\"?, \"prompt\": text or [token ids], sampling fields}; "
                 "- is standard input; prints one JSON line each, in order, then a summary; "
                 "interrupted, what was finished, the rest as \"cancelled\"")
      ->type_name("FILE")
      ->check(not_empty())
      ->group(group);
  app.add_flag("--chat", f.chat, "apply the model's chat template (not in this build yet)")
      ->group(group);
  app.add_option("--system", f.system, "system message, with --chat (not in this build yet)")
      ->type_name("TEXT")
      ->group(group);
}

void add_sampling_flags(CLI::App& app, Request& request) {
  Sampling& s = request.sampling;
  const std::string group = "Sampling (fields of a batch line win)";
  const auto whole = [&](const std::string& names, int32_t& value, Bounds<int32_t> bounds,
                         const std::string& help) {
    add_whole(app, names, value, bounds, help)->group(group);
  };
  const auto real = [&](const std::string& names, double& value, const std::string& help) {
    app.add_option(names, value, help)->type_name("X")->group(group);
  };
  whole("-n,--max-tokens,--n-predict", s.max_tokens, {1, kMostTokens},
        "most tokens generated (default 256)");
  whole("--min-tokens", s.min_tokens, {0, kMostTokens},
        "no stop counts before so many tokens (default 0)");
  real("--temperature,--temp", s.temperature, "0 takes the likeliest token (default 0)");
  whole("--top-k", s.top_k, {-1, kMostTokens},
        "draw from the k likeliest; 0 or -1: all (default 0)");
  real("--top-p", s.top_p, "draw from the likeliest that hold this mass (default 1)");
  real("--min-p", s.min_p, "least probability relative to the likeliest (default 0)");
  whole("--n", s.n, {1, 128}, "choices grown from one prompt (default 1)");
  app.add_option("--stop", s.stop, "text that ends the answer; may be repeated")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group(group);
  app.add_option("--stop-token-ids", s.stop_token_ids, "token ids that end the answer")
      ->type_name("ID,...")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->group(group);
  app.add_flag("--include-stop-str-in-output", s.include_stop_str_in_output,
               "keep the stop text in the answer")
      ->group(group);
  app.add_flag("--ignore-eos", s.ignore_eos, "the model's end tokens do not stop")->group(group);
  app.add_flag("--logprobs", s.logprobs, "log probabilities of the chosen tokens, with --json")
      ->group(group);
  whole("--top-logprobs", s.top_logprobs, {0, 20},
        "and of so many alternatives, 0 to 20 (default 0)");
  app.add_option("--cache-salt", request.cache_salt, "share prefixes only within this salt")
      ->type_name("TEXT")
      ->group(group);
}

Expected<std::string> slurp(const std::string& path) {
  const auto close = [](std::FILE* file) { return file == stdin ? 0 : std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> file(
      path == "-" ? stdin : std::fopen(path.c_str(), "rb"), close);
  std::string text;
  char piece[1 << 16];
  for (size_t got = 1; file && got > 0;) {
    got = std::fread(piece, 1, sizeof(piece), file.get());
    text.append(piece, got);
  }
  if (!file || std::ferror(file.get()) != 0) {
    return fail(ErrorCode::kNotFound, path + ": cannot be read; name a readable file");
  }
  return text;
}

// How a run went, beyond what it printed.
struct Outcome {
  int64_t answers = 0, errors = 0, cancelled = 0;
};

// Prints text as it becomes certain.
class TextPrinter : public Observer {
 public:
  Verdict on_token(const TokenEvent& event) override {
    print(event.text);
    return Verdict::kContinue;
  }
  void on_finish(const Result& result, std::string_view rest) override {
    print(rest);
    if (!result.error || printed_) print("\n");
    error_ = result.error;
    cancelled_ = result.finish_reason == FinishReason::kCancelled;
  }
  const std::optional<Error>& error() const { return error_; }
  bool cancelled() const { return cancelled_; }

 private:
  void print(std::string_view text) {
    if (text.empty()) return;
    printed_ = true;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }
  std::optional<Error> error_;
  bool printed_ = false, cancelled_ = false;
};

// Collects one request's choices for the ordered output.
class LineCollector : public Observer {
 public:
  LineCollector(OutputOrder& order, int64_t first_slot) : order_(order), first_slot_(first_slot) {}
  void on_finish(const Result& result, std::string_view) override {
    order_.put(first_slot_ + result.choice, result);
  }

 private:
  OutputOrder& order_;
  const int64_t first_slot_;
};

Result error_result(const Error& error) {
  Result result;
  result.finish_reason = FinishReason::kError;
  result.error = error;
  return result;
}

bool output_failed() { return std::ferror(stdout) != 0; }

// Once a line was lost, those behind it would only hide that.
void print_line(const nlohmann::ordered_json& line) {
  if (output_failed()) return;
  std::puts(one_line(line).c_str());
  std::fflush(stdout);
}

Expected<Outcome> generate_text(Engine& engine, const Request& request, const GiveUp& give_up) {
  const auto printer = std::make_shared<TextPrinter>();
  TRY(const RequestId id, engine.submit(request, printer));
  static_cast<void>(id);
  engine.run(give_up);
  if (printer->error()) return fail(*printer->error());
  return Outcome{1, 0, printer->cancelled() ? 1 : 0};
}

// Runs every good item; bad ones become error lines in their places.
Expected<Outcome> generate_lines(Engine& engine, std::vector<BatchItem> items, bool summary,
                                 const GiveUp& give_up) {
  const Clock::time_point start = Clock::now();
  ProgressLine progress("generating");
  Totals totals;
  int64_t slots = 0, printed = 0;
  std::vector<std::pair<int64_t, size_t>> item_of;  // first slot of each item
  for (size_t i = 0; i < items.size(); ++i) {
    item_of.emplace_back(slots, i);
    slots += items[i].request ? items[i].request->sampling.n : 1;
  }
  size_t item = 0;
  OutputOrder order(slots, [&](int64_t slot, const Result& result) {
    while (item + 1 < item_of.size() && item_of[item + 1].first <= slot) ++item;
    progress.clear();
    print_line(result_json(items[item].id, slot, result));
    totals.add(result);
    ++printed;
    progress.show(printed, slots, std::to_string(printed) + " of " + std::to_string(slots));
  });
  engine.reset_peak();
  for (size_t i = 0; i < items.size(); ++i) {
    const int64_t slot = item_of[i].first;
    BatchItem& given = items[i];
    std::optional<Error> error;
    if (!given.request) {
      error = given.request.error();
    } else {
      const int32_t choices = given.request->sampling.n;
      const auto submitted =
          engine.submit(std::move(*given.request), std::make_shared<LineCollector>(order, slot));
      if (submitted) continue;
      error = submitted.error();
      if (given.line > 0) {
        error->message = "line " + std::to_string(given.line) + ": " + error->message;
      }
      for (int32_t k = 1; k < choices; ++k) order.put(slot + k, error_result(*error));
    }
    order.put(slot, error_result(*error));
  }
  engine.run(give_up);
  totals.requests = static_cast<int64_t>(items.size());
  totals.wall_ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  totals.kv = engine.stats().peak;
  if (summary) print_line(summary_json(totals));
  return Outcome{slots, totals.errors, totals.cancelled};
}

// On standard error: standard output holds the answers.
Status print_profile(const Engine& engine, const EngineOptions& options, bool json) {
  TRY(const Ceilings ceilings, ceilings_for(options));
  const nlohmann::ordered_json profile = profile_json(engine.profile(), ceilings);
  const std::string text = json ? one_line({{"profile", profile}}) + "\n" : profile_text(profile);
  std::fputs(text.c_str(), stderr);
  return {};
}

// What was asked for, read and judged before any model is loaded.
struct Input {
  std::vector<BatchItem> items;
  bool batch = false;
};

void warn_unknown(const std::string& path, const std::map<std::string, int64_t>& fields) {
  constexpr size_t kMostNamed = 20;
  size_t named = 0;
  for (const auto& [name, line] : fields) {
    if (++named > kMostNamed) {
      return log::warn(path + ": so are " + std::to_string(fields.size() - kMostNamed) + " more");
    }
    log::warn(path + ": field " + text::in_quotes(name) +
              " is unknown and ignored (first in line " + std::to_string(line) + ")");
  }
}

Expected<Input> read_input(const GenerateFlags& flags) {
  if (flags.chat || !flags.system.empty()) {
    return fail(ErrorCode::kUnsupported,
                std::string(flags.chat ? "--chat" : "--system") +
                    ": this build does not apply chat templates; give the whole text with -p");
  }
  Input input;
  if (!flags.batch.empty()) {
    TRY(const std::string text, slurp(flags.batch));
    BatchFile file = parse_batch(text, flags.defaults);
    if (file.items.empty()) {
      return fail(ErrorCode::kInvalidArgument, flags.batch + ": holds no request");
    }
    warn_unknown(flags.batch, file.unknown_fields);
    input.items = std::move(file.items);
    input.batch = true;
    return input;
  }
  Request request = flags.defaults;
  request.prompt = flags.prompt;
  if (!flags.prompt_file.empty()) {
    TRY(request.prompt, slurp(flags.prompt_file));
  }
  input.items.push_back({0, nullptr, std::move(request)});
  return input;
}

// validate() names a JSON field; the flag is spelled like it.
Status check_sampling_flags(const Sampling& sampling) {
  if (sampling.top_logprobs > 0 && !sampling.logprobs) {
    return fail(ErrorCode::kInvalidArgument, "--top-logprobs needs --logprobs");
  }
  const Status status = validate(sampling);
  if (status) return {};
  std::string message = status.error().message;
  for (char& c : message) {
    if (c == ' ') break;
    if (c == '_') c = '-';
  }
  return fail(status.error().code, "--" + message);
}

// Known only with the model.
Status check_stop_tokens(const std::vector<TokenId>& ids, int64_t vocab) {
  for (const TokenId id : ids) {
    if (id >= 0 && id < vocab) continue;
    return fail(ErrorCode::kInvalidArgument, "--stop-token-ids holds " + std::to_string(id) +
                                                 "; this model's vocabulary has 0 to " +
                                                 std::to_string(vocab - 1));
  }
  return {};
}

Expected<Outcome> generate(const GenerateFlags& flags) {
  TRY_STATUS(check_sampling_flags(flags.defaults.sampling));
  TRY(EngineOptions options, options_of(flags.model));
  TRY(Input input, read_input(flags));
  int64_t choices = 0;
  for (const BatchItem& item : input.items) {
    choices += item.request ? item.request->sampling.n : 1;
  }
  if (choices > (1 << 24)) {
    return fail(ErrorCode::kTooLarge, flags.batch + ": asks for " + std::to_string(choices) +
                                          " answers; one run takes 16777216");
  }
  options.max_queued = std::max(options.max_queued, static_cast<int32_t>(choices));
  const bool text = !input.batch && !flags.model.json && choices == 1;
  if (text && flags.defaults.sampling.logprobs) log::warn("--logprobs shows only with --json");
  TRY(const std::unique_ptr<Engine> engine, open_engine(options));
  TRY_STATUS(check_stop_tokens(flags.defaults.sampling.stop_token_ids, engine->info().vocab_size));
  const Interrupt interrupt;  // from here on there is something to lose
  const GiveUp give_up = [&] { return interrupt.came() || output_failed(); };
  const auto outcome = text ? generate_text(*engine, *input.items.front().request, give_up)
                            : generate_lines(*engine, std::move(input.items), input.batch, give_up);
  if (outcome && options.profile) TRY_STATUS(print_profile(*engine, options, flags.model.json));
  return outcome;
}

int run_generate(const GenerateFlags& flags) {
  const Expected<Outcome> done = generate(flags);
  if (!done) return report(done.error());
  if (output_failed()) return kExitFailure;  // said at the end of every command
  const auto count = [](int64_t n) { return static_cast<long long>(n); };
  if (done->cancelled > 0) {
    std::fprintf(stderr, "coppice generate: interrupted; %lld of %lld answers cancelled\n",
                 count(done->cancelled), count(done->answers));
    return kExitFailure;
  }
  if (done->errors == 0) return kExitOk;
  std::fprintf(stderr,
               "coppice generate: %lld of %lld answers failed; see \"error\" in their lines\n",
               count(done->errors), count(done->answers));
  return kExitFailure;
}

}  // namespace

void add_generate(CLI::App& app, std::function<int()>* run) {
  const auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = app.add_subcommand("generate", "text from a prompt, or from a batch of them");
  add_input_flags(*command, *flags);
  add_sampling_flags(*command, flags->defaults);
  add_model_flags(*command, flags->model);
  add_profile_flag(*command, flags->model.profile, "on standard error at the end");
  command->callback([command, flags, run] {
    const size_t inputs =
        command->count("--prompt") + command->count("--prompt-file") + command->count("--batch");
    if (inputs != 1) {
      throw CLI::ValidationError("generate takes one of -p TEXT, --prompt-file FILE, --batch FILE");
    }
    *run = [flags] { return run_generate(*flags); };
  });
}

}  // namespace coppice::tools
