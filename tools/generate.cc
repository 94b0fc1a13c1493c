#include "generate.h"

#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <utility>

#include "base/log.h"
#include "batch_file.h"
#include "coppice/engine.h"
#include "exit_code.h"
#include "model_flags.h"
#include "open_engine.h"
#include "output_order.h"
#include "progress.h"
#include "result_json.h"
#include "text/json.h"

namespace coppice::tools {
namespace {

using Clock = std::chrono::steady_clock;

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
      ->group(group);
  app.add_option("--batch", f.batch,
                 "JSON lines {\"id\"?, \"prompt\": text or [token ids], sampling fields}; "
                 "- is standard input; prints one JSON line each, in order, then a summary")
      ->type_name("FILE")
      ->group(group);
  app.add_flag("--chat", f.chat, "apply the model's chat template")->group(group);
  app.add_option("--system", f.system, "system message, with --chat")
      ->type_name("TEXT")
      ->group(group);
}

void add_sampling_flags(CLI::App& app, Request& request) {
  Sampling& s = request.sampling;
  const std::string group = "Sampling (fields of a batch line win)";
  const auto number = [&](const std::string& names, auto& value, const std::string& help) {
    app.add_option(names, value, help)->type_name("N")->group(group);
  };
  number("-n,--max-tokens,--n-predict", s.max_tokens, "most tokens generated (default 256)");
  number("--min-tokens", s.min_tokens, "no stop counts before so many tokens (default 0)");
  number("--temperature,--temp", s.temperature, "0 takes the likeliest token (default 0)");
  number("--top-k", s.top_k, "draw from the k likeliest; 0: all (default 0)");
  number("--top-p", s.top_p, "draw from the likeliest that hold this mass (default 1)");
  number("--min-p", s.min_p, "least probability relative to the likeliest (default 0)");
  number("--n", s.n, "choices grown from one prompt (default 1)");
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
  app.add_flag("--logprobs", s.logprobs, "log probabilities of the chosen tokens (JSON)")
      ->group(group);
  number("--top-logprobs", s.top_logprobs, "and of so many alternatives, 0 to 20 (default 0)");
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

// Prints text as it becomes certain.
class TextPrinter : public Observer {
 public:
  Verdict on_token(const TokenEvent& event) override {
    print(event.text);
    return Verdict::kContinue;
  }
  void on_finish(const Result& result, std::string_view rest) override {
    print(rest);
    print("\n");
    error_ = result.error;
  }
  const std::optional<Error>& error() const { return error_; }

 private:
  static void print(std::string_view text) {
    if (text.empty()) return;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }
  std::optional<Error> error_;
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

Status generate_text(Engine& engine, const Request& request) {
  const auto printer = std::make_shared<TextPrinter>();
  TRY(const RequestId id, engine.submit(request, printer));
  static_cast<void>(id);
  engine.run();
  if (printer->error()) return fail(*printer->error());
  return {};
}

// Runs every good item; bad ones become error lines in their places. Returns how many failed.
int64_t generate_lines(Engine& engine, std::vector<BatchItem> items, bool summary) {
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
    std::puts(one_line(result_json(items[item].id, slot, result)).c_str());
    std::fflush(stdout);
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
  engine.run();
  totals.requests = static_cast<int64_t>(items.size());
  totals.wall_ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  totals.kv = engine.stats().peak;
  if (summary) std::puts(one_line(summary_json(totals)).c_str());
  return totals.errors;
}

// What was asked for, read and judged before any model is loaded.
struct Input {
  std::vector<BatchItem> items;
  bool batch = false;
};

void warn_unknown(const std::string& path, const std::set<std::string>& fields) {
  constexpr size_t kMostNamed = 20;
  size_t named = 0;
  for (const std::string& name : fields) {
    if (++named > kMostNamed) {
      return log::warn(path + ": so are " + std::to_string(fields.size() - kMostNamed) + " more");
    }
    log::warn(path + ": field " + text::in_quotes(name) + " is unknown and ignored");
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
  const Status status = validate(sampling);
  if (status) return {};
  std::string message = status.error().message;
  for (char& c : message) {
    if (c == ' ') break;
    if (c == '_') c = '-';
  }
  return fail(status.error().code, "--" + message);
}

Expected<int64_t> generate(const GenerateFlags& flags) {
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
  TRY(const std::unique_ptr<Engine> engine, open_engine(options));
  if (!input.batch && !flags.model.json && choices == 1) {
    TRY_STATUS(generate_text(*engine, *input.items.front().request));
    return 0;
  }
  return generate_lines(*engine, std::move(input.items), input.batch);
}

int run_generate(const GenerateFlags& flags) {
  const Expected<int64_t> failed = generate(flags);
  if (!failed) return report(failed.error());
  if (*failed == 0) return kExitOk;
  std::fprintf(stderr, "coppice generate: %lld answers are errors; see their lines\n",
               static_cast<long long>(*failed));
  return kExitFailure;
}

}  // namespace

void add_generate(CLI::App& app, std::function<int()>* run) {
  const auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = app.add_subcommand("generate", "text from a prompt, or from a batch of them");
  add_input_flags(*command, *flags);
  add_sampling_flags(*command, flags->defaults);
  add_model_flags(*command, flags->model);
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
