#include "bench_flags.h"

#include <cstdarg>
#include <cstdio>

#include "arguments.h"
#include "model_flags.h"
#include "ops/cpu/thread_pool.h"

namespace coppice::tools {

int MachineFlags::thread_count() const {
  return threads == 0 ? ops::cpu::physical_cores() : threads;
}

void add_machine_flags(CLI::App& app, MachineFlags& flags) {
  add_whole(app, "-t,--threads", flags.threads, Bounds<int32_t>{0, kMostThreads}, kThreadsHelp);
  app.add_option("--isa", flags.isa, "auto, avx512bf16, avx512 or avx2 (default auto)")
      ->type_name("ISA");
}

Expected<ops::cpu::Isa> isa_of(const MachineFlags& flags) {
  const auto isa = ops::cpu::choose_isa(flags.isa);
  if (!isa) return fail(isa.error().code, "--" + isa.error().message);
  return *isa;
}

void add_effort_flags(CLI::App& app, Effort& effort) {
  add_whole(app, "--rounds", effort.rounds, Bounds<int32_t>{1, 100000},
            "least rounds a case is measured (default " + std::to_string(effort.rounds) + ")");
  char seconds[32];
  std::snprintf(seconds, sizeof(seconds), "%g", effort.seconds);
  app.add_option("--seconds", effort.seconds,
                 std::string("further rounds while a case took less, 200 in all at most; 0 to 3600 "
                             "(default ") +
                     seconds + ")")
      ->type_name("X")
      ->check(CLI::Range(0.0, 3600.0))
      ->check([](const std::string& text) {
        return text.find_first_of("nN") == std::string::npos
                   ? std::string()
                   : "--seconds is " + text + "; it takes 0 to 3600";
      });
}

void print_json_line(const nlohmann::ordered_json& json) {
  std::puts(json.dump().c_str());
  std::fflush(stdout);
}

void print_text_line(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  va_end(arguments);
  std::putchar('\n');
  std::fflush(stdout);
}

}  // namespace coppice::tools
