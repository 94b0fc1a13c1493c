#include <array>
#include <cctype>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "arguments.h"
#include "bench_commands.h"
#include "bench_flags.h"
#include "ceilings.h"
#include "exit_code.h"
#include "gemm_case.h"
#include "interrupt.h"
#include "progress.h"

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kMostExtent = 1 << 18;
constexpr int32_t kMostGemmRows = 4096;
constexpr std::array kTypes{DType::kF32,  DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                            DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

struct Flags {
  std::vector<int32_t> rows{1, 8, 32, 128, 512};
  std::vector<GemmShape> shapes{{2048, 2048}, {8192, 2048}, {2048, 8192}};
  std::vector<DType> types{kTypes.begin(), kTypes.end()};
  MachineFlags machine;
  Effort effort{9, 0.3};
  bool json = false;
};

// "Q4_K" as files spell it, "bf16" as flags do.
std::string type_name(DType type) {
  std::string name(dtype_name(type));
  if (name[0] == 'q') {
    for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

std::string type_names(const std::vector<DType>& types) {
  std::vector<std::string> names;
  for (const DType type : types) names.push_back(type_name(type));
  return join_list(names);
}

std::string shape_name(const GemmShape& shape) {
  return std::to_string(shape.n) + "x" + std::to_string(shape.k);
}

DType read_type(const std::string& text) {
  std::string name = text;
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const DType type : kTypes) {
    if (dtype_name(type) == name) return type;
  }
  throw CLI::ValidationError("--types holds \"" + text + "\"; it takes " +
                             type_names({kTypes.begin(), kTypes.end()}));
}

GemmShape read_shape(const std::string& text) {
  const size_t cross = std::min(text.find('x'), text.size());
  const std::string_view n(text.data(), cross);
  const std::string_view k = std::string_view(text).substr(std::min(cross + 1, text.size()));
  if (n.empty() || k.empty()) {
    throw CLI::ValidationError("--shapes holds \"" + text +
                               "\"; it takes outputs x inputs, as 2048x8192");
  }
  const Bounds<int64_t> bounds{1, kMostExtent};
  return {read_whole("--shapes", n, bounds), read_whole("--shapes", k, bounds)};
}

Status fit(const Flags& flags) {
  for (const DType type : flags.types) {
    for (const GemmShape& shape : flags.shapes) {
      if (shape.k % dtype_block(type) == 0) continue;
      return fail(ErrorCode::kInvalidArgument,
                  "--shapes " + shape_name(shape) + ": " + type_name(type) +
                      " takes inputs (the second number) that are multiples of " +
                      std::to_string(dtype_block(type)));
    }
  }
  return {};
}

// What one line is about.
struct Point {
  DType type;
  GemmShape shape;
  int32_t rows;
  bool cold;
};

ordered_json line_of(const Point& point, const GemmCase& gemm, const Samples& us,
                     const Ceilings& ceilings, const Flags& flags, std::string_view isa) {
  const double ns = us.median() * 1e3;
  const double gflops = gemm.flops(point.rows) / ns, gbps = gemm.bytes(point.rows) / ns;
  ordered_json json{{"type", type_name(point.type)},
                    {"n", point.shape.n},
                    {"k", point.shape.k},
                    {"rows", point.rows},
                    {"weights", point.cold ? "cold" : "hot"},
                    {"threads", flags.machine.thread_count()},
                    {"isa", isa}};
  us.put(json, "us");
  json["gflops"] = gflops;
  json["gbps"] = gbps;
  json["peak_gflops"] = ceilings.peak_gflops(point.type);
  json["peak_share"] = gflops / ceilings.peak_gflops(point.type);
  json["bandwidth_gbps"] = ceilings.bandwidth_gbps;
  json["bandwidth_share"] = gbps / ceilings.bandwidth_gbps;
  json["weight_bytes"] = gemm.weight_bytes();
  json["copies"] = point.cold ? gemm.copies() : 1;
  json["rounds"] = us.count();
  json["noisy"] = ceilings.noisy;
  return json;
}

void print_head(const Flags& flags, const Ceilings& ceilings, std::string_view isa) {
  print_text_line(
      "%d threads, %.*s; ceilings: %.0f GFLOP/s f32, %.0f bf16, %.0f GOP/s int8, %.1f GB/s read%s",
      flags.machine.thread_count(), static_cast<int>(isa.size()), isa.data(), ceilings.f32_gflops,
      ceilings.bf16_gflops, ceilings.int8_gops, ceilings.bandwidth_gbps,
      ceilings.noisy ? " (noisy: below the reference machine's)" : "");
  print_text_line("%-5s %12s %5s %-5s %12s %12s %12s %9s %6s %7s %6s", "type", "N x K", "rows", "",
                  "us", "p10", "p90", "GFLOP/s", "peak", "GB/s", "read");
}

void print_row(const ordered_json& json) {
  const std::string shape =
      std::to_string(json["n"].get<int64_t>()) + "x" + std::to_string(json["k"].get<int64_t>());
  print_text_line("%-5s %12s %5d %-5s %12.1f %12.1f %12.1f %9.1f %4.0f %% %7.1f %4.0f %%",
                  json["type"].get<std::string>().c_str(), shape.c_str(), json["rows"].get<int>(),
                  json["weights"].get<std::string>().c_str(), json["us"].get<double>(),
                  json["us_p10"].get<double>(), json["us_p90"].get<double>(),
                  json["gflops"].get<double>(), 100 * json["peak_share"].get<double>(),
                  json["gbps"].get<double>(), 100 * json["bandwidth_share"].get<double>());
}

Samples measure(GemmCase& gemm, const Point& point, const Effort& effort) {
  Samples us;
  // A first call makes scratch and wakes the threads; a second finds the weights where they stay.
  for (int i = 0; i < 2; ++i) gemm.multiply(point.rows, point.cold);
  spend(effort, [&] {
    const Stopwatch call;
    gemm.multiply(point.rows, point.cold);
    us.add(call.us());
  });
  return us;
}

Status run(const Flags& flags) {
  TRY_STATUS(fit(flags));
  TRY(const ops::cpu::Isa isa, isa_of(flags.machine));
  const std::string_view isa_name = ops::cpu::isa_name(isa);
  const int threads = flags.machine.thread_count();
  const Interrupt interrupt;
  TRY(Ceilings ceilings, measure_ceilings(threads, isa));
  TRY_STATUS(Interrupt::check());
  if (!flags.json) print_head(flags, ceilings, isa_name);
  ProgressLine progress("products");
  const auto total =
      static_cast<int64_t>(flags.types.size() * flags.shapes.size() * flags.rows.size() * 2);
  const int32_t most_rows = *std::max_element(flags.rows.begin(), flags.rows.end());
  int64_t done = 0;
  for (const DType type : flags.types) {
    TRY(const auto gemm,
        GemmCase::create(type, most_rows, {.threads = threads, .isa = flags.machine.isa}));
    for (const GemmShape& shape : flags.shapes) {
      progress.show(done, total, type_name(type) + " " + shape_name(shape) + ", loading");
      TRY_STATUS(gemm->load(shape, last_level_cache()));
      for (const int32_t rows : flags.rows) {
        for (const bool cold : {false, true}) {
          progress.show(done++, total, type_name(type) + " " + shape_name(shape));
          if (cold && !gemm->has_cold()) continue;
          const Point point{type, shape, rows, cold};
          const Samples us = measure(*gemm, point, flags.effort);
          TRY_STATUS(Interrupt::check());
          TRY_STATUS(raise_ceilings(ceilings));
          const ordered_json json = line_of(point, *gemm, us, ceilings, flags, isa_name);
          progress.clear();
          flags.json ? print_json_line(json) : print_row(json);
        }
      }
    }
  }
  return {};
}

}  // namespace

void add_bench_gemm(CLI::App& bench, std::function<int()>* run_command) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* app = bench.add_subcommand(
      "gemm",
      "Products of activations with weights, as a step has them: GFLOP/s and GB/s, with one matrix "
      "over and over (hot) and with copies in turn that outgrow the caches (cold; left out where "
      "256 copies do not), medians with p10 and p90");
  add_wholes(*app, "--rows", flags->rows, Bounds<int32_t>{1, kMostGemmRows},
             "rows of the input, 1 to 4096");
  std::vector<std::string> shapes;
  for (const GemmShape& shape : flags->shapes) shapes.push_back(shape_name(shape));
  app->add_option_function<std::string>(
         "--shapes",
         [flags](const std::string& text) {
           flags->shapes.clear();
           for (const std::string& item : split_list(text)) {
             flags->shapes.push_back(read_shape(item));
           }
         },
         "outputs x inputs (N x K) of the weights (default " + join_list(shapes) + ")")
      ->type_name("LIST");
  app->add_option_function<std::string>(
         "--types",
         [flags](const std::string& text) {
           flags->types.clear();
           for (const std::string& item : split_list(text)) flags->types.push_back(read_type(item));
         },
         "types of the weights (default " + type_names(flags->types) + ", which is all)")
      ->type_name("LIST");
  add_machine_flags(*app, flags->machine);
  add_effort_flags(*app, flags->effort);
  app->add_flag("--json", flags->json, "one JSON object a line; us are microseconds");
  app->callback(
      [flags, run_command] { *run_command = [flags] { return exit_code_of(run(*flags)); }; });
}

}  // namespace coppice::tools
