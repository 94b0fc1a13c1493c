#include "bench_attention.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "arguments.h"
#include "attention_case.h"
#include "ceilings.h"
#include "exit_code.h"
#include "model_flags.h"
#include "ops/cpu/isa.h"

namespace coppice::tools {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMinRounds = 9, kMaxRounds = 200;
constexpr double kSecondsPerCase = 8.0;
constexpr int32_t kMostNodes = 32768, kMostTokens = 1 << 24;
constexpr int32_t kMostHeads = 1024, kMostHeadDim = 256;

struct Flags {
  int32_t heads = 32, kv_heads = 32, head_dim = 128;
  int32_t batch = 32, shared = 4096, own = 128;
  std::string tree, kv_type = "bf16", isa = "auto";
  int32_t threads = 0;
  bool json = false;
  bool batch_given = false, shared_given = false, own_given = false, tree_given = false;
};

// --- flags to a shape

Error bad_flag(const std::string& flag, const std::string& accepts) {
  return {ErrorCode::kInvalidArgument, flag + " accepts " + accepts};
}

// "1,4,64" to numbers from 1 up; empty when it is not that.
std::vector<int32_t> numbers(std::string_view text) {
  std::vector<int32_t> out;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    int32_t n = 0;
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), n);
    if (error != std::errc() || end != item.data() + item.size() || n < 1) return {};
    out.push_back(n);
    if (comma == std::string_view::npos) return out;
    text.remove_prefix(comma + 1);
  }
}

Status read_tree(const Flags& flags, AttentionShape& shape) {
  if (flags.batch_given || flags.shared_given || flags.own_given) {
    return fail(bad_flag("--tree", "no --batch, --shared or --private beside it"));
  }
  const size_t slash = flags.tree.find('/');
  shape.nodes = numbers(flags.tree.substr(0, slash));
  shape.tokens =
      slash == std::string::npos ? std::vector<int32_t>() : numbers(flags.tree.substr(slash + 1));
  const bool grows = std::is_sorted(shape.nodes.begin(), shape.nodes.end());
  if (shape.nodes.empty() || shape.nodes.size() != shape.tokens.size() || !grows) {
    return fail(bad_flag("--tree",
                         "total nodes per level / tokens per node, as 1,4,64/1024,256,256, with no "
                         "level smaller than the one above"));
  }
  return {};
}

Expected<AttentionShape> shape_of(const Flags& flags) {
  AttentionShape shape;
  shape.heads = flags.heads;
  shape.kv_heads = flags.kv_heads;
  shape.head_dim = flags.head_dim;
  if (flags.heads % flags.kv_heads != 0) {
    return fail(bad_flag("--heads", "a multiple of --kv-heads"));
  }
  if (flags.kv_type != "bf16" && flags.kv_type != "f32") {
    return fail(bad_flag("--kv-type", "bf16 or f32"));
  }
  shape.kv_type = *dtype_from_name(flags.kv_type);
  if (flags.tree_given) {
    TRY_STATUS(read_tree(flags, shape));
  } else {
    if (flags.shared + flags.own < 1) {
      return fail(bad_flag("--shared", "1 or more where --private is 0"));
    }
    if (flags.shared > 0) {
      shape.nodes.push_back(1);
      shape.tokens.push_back(flags.shared);
    }
    shape.nodes.push_back(flags.batch);
    shape.tokens.push_back(flags.own);
  }
  int64_t nodes = 0;
  for (const int32_t n : shape.nodes) nodes += n;
  if (nodes > kMostNodes || shape.unique_tokens() > kMostTokens) {
    return fail(
        bad_flag(flags.tree_given ? "--tree" : "--batch times --private, and --shared once,",
                 "at most 32768 nodes and 16777216 tokens in all; these are " +
                     std::to_string(nodes) + " and " + std::to_string(shape.unique_tokens())));
  }
  return shape;
}

// --- times

struct Way {
  const char* key;
  std::function<void()> run;
  std::vector<double> us = {};

  double quantile(double q) const {
    std::vector<double> sorted = us;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1) + 0.5)];
  }
  double median() const { return quantile(0.5); }
};

// All ways in turn, round after round, so that what disturbs the machine disturbs all of them.
void time_ways(std::vector<Way>& ways) {
  for (Way& way : ways) way.run();
  const auto begin = Clock::now();
  for (int round = 0; round < kMaxRounds; ++round) {
    const std::chrono::duration<double> spent = Clock::now() - begin;
    if (round >= kMinRounds && spent.count() > kSecondsPerCase) return;
    for (Way& way : ways) {
      const auto start = Clock::now();
      way.run();
      way.us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    }
  }
}

struct Floors {
  PlanCost total;
  double floor_us = 0, ideal_us = 0;
};

Floors floors_of(const std::vector<PlanCost>& segments, const Ceilings& ceilings) {
  Floors floors;
  const auto compute_us = [&](const PlanCost& cost) {
    return (cost.flops / ceilings.peak_gflops + cost.exps / ceilings.exp_grate) * 1e-3;
  };
  const auto read_us = [&](const PlanCost& cost) {
    return cost.bytes / ceilings.bandwidth_gbps * 1e-3;
  };
  for (const PlanCost& cost : segments) {
    floors.floor_us += std::max(read_us(cost), compute_us(cost));
    floors.total.flops += cost.flops;
    floors.total.bytes += cost.bytes;
    floors.total.exps += cost.exps;
  }
  floors.ideal_us = std::max(read_us(floors.total), compute_us(floors.total));
  return floors;
}

// --- the report

nlohmann::ordered_json parameters(const Flags& flags, int threads, std::string_view isa) {
  nlohmann::ordered_json json{
      {"heads", flags.heads}, {"kv_heads", flags.kv_heads}, {"head_dim", flags.head_dim}};
  const bool tree = flags.tree_given;
  json["batch"] = tree ? nlohmann::ordered_json() : nlohmann::ordered_json(flags.batch);
  json["shared"] = tree ? nlohmann::ordered_json() : nlohmann::ordered_json(flags.shared);
  json["private"] = tree ? nlohmann::ordered_json() : nlohmann::ordered_json(flags.own);
  json["tree"] = tree ? nlohmann::ordered_json(flags.tree) : nlohmann::ordered_json();
  json["kv_type"] = flags.kv_type;
  json["threads"] = threads;
  json["isa"] = isa;
  return json;
}

void add_times(nlohmann::ordered_json& json, const std::vector<Way>& ways) {
  const auto quantile = [](const Way& way, double q) {
    return way.us.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(way.quantile(q));
  };
  for (const Way& way : ways) {
    const std::string key = way.key;
    json[key + "_us"] = quantile(way, 0.5);
    json[key + "_us_p10"] = quantile(way, 0.1);
    json[key + "_us_p90"] = quantile(way, 0.9);
  }
}

void print_text(const nlohmann::ordered_json& json) {
  for (const auto& [key, value] : json.items()) {
    std::printf("%-32s %s\n", key.c_str(), value.dump().c_str());
  }
}

Status measure(const Flags& flags) {
  TRY(const AttentionShape shape, shape_of(flags));
  const auto isa = ops::cpu::choose_isa(flags.isa);
  if (!isa) return fail(isa.error().code, "--" + isa.error().message);
  const int threads = flags.threads == 0 ? ops::cpu::physical_cores() : flags.threads;
  Ceilings ceilings;
  {
    ops::cpu::ThreadPool pool(threads);
    TRY(ceilings, measure_ceilings(pool, ops::cpu::attention_kernel(*isa), shape.kv_type));
  }
  TRY(const auto bench, AttentionCase::create(shape, {.threads = threads, .isa = flags.isa}));
  const double error = bench->relative_error();
  const bool agree = bench->ways_agree();
  std::vector<Way> ways{{"two_phase", [&] { bench->two_phase(); }},
                        {"per_sequence", [&] { bench->per_sequence(); }},
                        {"per_sequence_seq_outer", [&] { bench->per_sequence_outer(); }}};
  if (bench->has_unshared()) {
    ways.push_back({"per_sequence_unshared", [&] { bench->per_sequence_unshared(); }});
  }
  ways.push_back({"plan", [&] { bench->plan(); }});
  time_ways(ways);
  if (!bench->has_unshared()) ways.insert(ways.end() - 1, {"per_sequence_unshared", {}});

  const Floors floors = floors_of(bench->segment_costs(), ceilings);
  nlohmann::ordered_json json = parameters(flags, threads, ops::cpu::isa_name(*isa));
  add_times(json, ways);
  json["floor_us"] = floors.floor_us;
  json["ideal_floor_us"] = floors.ideal_us;
  json["floor_fraction"] = floors.floor_us / ways[0].median();
  json["ideal_fraction"] = floors.ideal_us / ways[0].median();
  json["flops"] = floors.total.flops;
  json["bytes"] = floors.total.bytes;
  json["exps"] = floors.total.exps;
  json["peak_gflops"] = ceilings.peak_gflops;
  json["bandwidth_gbps"] = ceilings.bandwidth_gbps;
  json["l3_gbps"] = ceilings.l3_gbps;
  json["exp_grate"] = ceilings.exp_grate;
  json["unique_kv_bytes"] = bench->unique_kv_bytes();
  json["rel_err"] = error;
  json["bit_equal"] = agree;
  json["rounds"] = ways[0].us.size();
  json["layers"] = bench->layers();
  json["noisy"] = ceilings.noisy;
  if (flags.json) {
    std::printf("%s\n", json.dump().c_str());
  } else {
    print_text(json);
  }
  return {};
}

}  // namespace

void add_bench_attention(CLI::App& bench, std::function<int()>* run) {
  auto flags = std::make_shared<Flags>();
  CLI::App* app = bench.add_subcommand(
      "attention", "Attention over a tree of sequences: two-phase against per-sequence");
  const auto whole = [&](const std::string& name, int32_t& value, Bounds<int32_t> bounds,
                         const std::string& help) {
    return add_whole(*app, name, value, bounds, help + " (default " + std::to_string(value) + ")");
  };
  whole("--heads", flags->heads, {1, kMostHeads}, "query heads, a multiple of --kv-heads");
  whole("--kv-heads", flags->kv_heads, {1, kMostHeads}, "key-value heads");
  whole("--head-dim", flags->head_dim, {1, kMostHeadDim}, "1 to 256");
  auto* batch = whole("--batch", flags->batch, {1, kMostNodes}, "sequences");
  auto* shared =
      whole("--shared", flags->shared, {0, kMostTokens}, "tokens that all sequences share");
  auto* own = whole("--private", flags->own, {0, kMostTokens}, "further tokens of each sequence");
  auto* tree =
      app->add_option("--tree", flags->tree,
                      "instead: total nodes per level / tokens per node, as 1,4,64/1024,256,256")
          ->type_name("NODES/TOKENS");
  app->add_option("--kv-type", flags->kv_type, "bf16 or f32 (default bf16)")->type_name("TYPE");
  add_whole(*app, "-t,--threads", flags->threads, Bounds<int32_t>{0, kMostThreads}, kThreadsHelp);
  app->add_option("--isa", flags->isa, "auto, avx512bf16, avx512 or avx2 (default auto)")
      ->type_name("ISA");
  app->add_flag("--json", flags->json, "one JSON object on one line");
  app->callback([=] {
    flags->batch_given = batch->count() > 0;
    flags->shared_given = shared->count() > 0;
    flags->own_given = own->count() > 0;
    flags->tree_given = tree->count() > 0;
    *run = [flags] {
      const Status done = measure(*flags);
      return done ? kExitOk : report(done.error());
    };
  });
}

}  // namespace coppice::tools
