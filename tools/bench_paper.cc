#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "arguments.h"
#include "base/file.h"
#include "bench_commands.h"
#include "bench_flags.h"
#include "coppice/options.h"
#include "exit_code.h"
#include "interrupt.h"
#include "measured_on.h"
#include "paper_report.h"
#include "paper_run.h"
#include "progress.h"

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;

struct Flags {
  std::string out = "docs/bench";
  PaperOptions paper;
  MachineFlags machine;
};

// With what differs from the defaults.
std::string command_of(const Flags& flags) {
  const PaperOptions usual;
  const PaperOptions& given = flags.paper;
  std::string text = "coppice bench paper";
  const auto add = [&](const char* flag, const auto& value, const auto& otherwise) {
    if (value != otherwise) text += std::string(" ") + flag + " " + ordered_json(value).dump();
  };
  add("--threads", flags.machine.threads, 0);
  if (flags.machine.isa != "auto") text += " --isa " + flags.machine.isa;
  add("--rounds", given.effort.rounds, usual.effort.rounds);
  add("--seconds", given.effort.seconds, usual.effort.seconds);
  add("--every", given.every, usual.every);
  add("--scale", given.scale, usual.scale);
  return text;
}

ordered_json ceilings_json(const Ceilings& c) {
  return {{"f32_gflops", c.f32_gflops},
          {"bf16_gflops", c.bf16_gflops},
          {"int8_gops", c.int8_gops},
          {"exp_grate", c.exp_grate},
          {"bandwidth_gbps", c.bandwidth_gbps},
          {"l3_gbps", c.l3_gbps},
          {"noisy", c.noisy}};
}

// Folders for what is still to be measured, made before minutes go into it; what nothing was
// written to goes with this.
class MadeFolders {
 public:
  static Expected<MadeFolders> create(const std::filesystem::path& path) {
    MadeFolders out;
    std::error_code error;
    const auto is_missing = [&](const std::filesystem::path& at) {
      return std::filesystem::symlink_status(at, error).type() ==
             std::filesystem::file_type::not_found;
    };
    for (auto at = path; !at.empty() && is_missing(at); at = at.parent_path()) {
      out.made_.push_back(at);
    }
    std::filesystem::create_directories(path, error);
    if (!error) return out;
    return fail(ErrorCode::kNotFound,
                path.string() + ": cannot be made (" + error.message() + "); name another --out");
  }
  MadeFolders(MadeFolders&&) = default;
  MadeFolders& operator=(MadeFolders&&) = default;
  ~MadeFolders() {
    std::error_code not_empty;
    for (const auto& folder : made_) std::filesystem::remove(folder, not_empty);
  }

 private:
  MadeFolders() = default;
  std::vector<std::filesystem::path> made_;  // the deepest first
};

Status run(const Flags& flags) {
  TRY(const ops::cpu::Isa isa, isa_of(flags.machine));
  const Interrupt interrupt;
  TRY(const MadeFolders folders, MadeFolders::create(flags.out));
  const int threads = flags.machine.thread_count();
  TRY(Ceilings ceilings, measure_ceilings(threads, isa));
  TRY_STATUS(Interrupt::check());
  ProgressLine progress("paper");
  PaperOptions options = flags.paper;
  options.threads = threads;
  options.isa = flags.machine.isa;
  int64_t done = 0;
  constexpr int64_t kParts = 5 + 12 + 10;  // of Table 1, Table 3 and Figure 3
  options.progress = [&](const std::string& part) { progress.show(done++, kParts, part); };
  ordered_json report{{"date", today()},
                      {"machine", processor_name() + ", " + std::to_string(threads) + " threads, " +
                                      std::string(ops::cpu::isa_name(isa)) + ", last-level cache " +
                                      format_size(last_level_cache())},
                      {"command", command_of(flags)},
                      {"scale", options.scale}};
  TRY(report["table1"], paper_table1(ceilings, options));
  TRY(report["table3"], paper_table3_measured(ceilings, options));
  TRY(report["figure3"], paper_figure3(options));
  TRY_STATUS(Interrupt::check());
  report["ceilings"] = ceilings_json(ceilings);
  progress.clear();
  const std::filesystem::path out(flags.out);
  TRY_STATUS(write_file((out / "paper.json").string(), report.dump(1) + "\n"));
  TRY_STATUS(write_file((out / "paper.md").string(), paper_markdown(report)));
  TRY_STATUS(write_file((out / "table3.svg").string(), table3_svg(report)));
  TRY_STATUS(write_file((out / "figure3.svg").string(), figure3_svg(report)));
  print_text_line("%s", (out / "paper.md").string().c_str());
  return {};
}

}  // namespace

void add_bench_paper(CLI::App& bench, std::function<int()>* run_command) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* app = bench.add_subcommand(
      "paper",
      "ChunkAttention's Table 1, Table 3 and Figure 3, measured here: writes paper.md, paper.json, "
      "table3.svg and figure3.svg");
  app->add_option("--out", flags->out, "directory to write to (default docs/bench)")
      ->type_name("DIR")
      ->check(not_empty());
  add_machine_flags(*app, flags->machine);
  add_effort_flags(*app, flags->paper.effort);
  add_whole(*app, "--every", flags->paper.every, Bounds<int32_t>{1, 4096},
            "Figure 3: one step in so many is timed, for all of them (default 16)");
  add_whole(*app, "--scale", flags->paper.scale, Bounds<int32_t>{1, 256},
            "divide heads, widths and tokens by this, to try the command (default 1)");
  app->callback(
      [flags, run_command] { *run_command = [flags] { return exit_code_of(run(*flags)); }; });
}

}  // namespace coppice::tools
