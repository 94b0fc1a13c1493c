// `coppice bench` as users run it, on shapes that take no time: what its lines hold and how they
// hang together. Nothing here judges a time.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli_fixture.h"

namespace coppice {
namespace {

using nlohmann::json;

constexpr const char* kQuick = " --rounds 1 --seconds 0 -t 1";
constexpr const char* kTiny = " --random-weights tiny --kv-budget 16M -t 1";

TEST_F(Cli, BenchGemmMeasuresEveryTypeShapeAndRowCount) {
  const Outcome run = coppice(std::string("bench gemm --rows 1,3 --shapes 64x256,24x512 --json") +
                              " --types f32,bf16,Q8_0,q4_0,Q4_K,Q5_K,Q6_K" + kQuick);
  ASSERT_EQ(run.code, 0) << run.err;
  const std::vector<json> lines = run.lines();
  EXPECT_EQ(lines.size(), 7u * 2 * 2);  // too small for copies that outgrow the cache
  std::map<std::string, double> peaks;
  double of_bytes = 0;
  for (const json& line : lines) {
    const double n = line["n"], k = line["k"], rows = line["rows"], us = line["us"];
    EXPECT_NEAR(line["gflops"].get<double>() * us * 1e3, 2 * n * k * rows, 1) << line;
    EXPECT_NEAR(line["gbps"].get<double>() * us * 1e3,
                line["weight_bytes"].get<double>() + 4 * rows * (n + k), 1)
        << line;
    EXPECT_DOUBLE_EQ(line["peak_share"].get<double>() * line["peak_gflops"].get<double>(),
                     line["gflops"].get<double>());
    EXPECT_LE(line["us_p10"], line["us_p90"]);
    EXPECT_EQ(line["weights"], "hot");
    EXPECT_EQ(line["threads"], 1);
    EXPECT_EQ(line["rounds"], 1);
    const double peak = line["peak_gflops"];
    peaks[line["type"]] = peak;
    if (line["type"].get<std::string>().front() != 'Q') continue;
    // Quantised types share the ceiling of byte products, which is taken again and only rises.
    EXPECT_GE(peak, of_bytes) << line;
    of_bytes = peak;
  }
  ASSERT_EQ(peaks.size(), 7u);
  EXPECT_NE(peaks["Q4_0"], peaks["f32"]);
}

TEST_F(Cli, BenchGemmReadsLargeWeightsHotAndCold) {
  const std::string arguments = "bench gemm --rows 2 --shapes 2048x1024 --types bf16";
  const Outcome run = coppice(arguments + kQuick + " --json");
  ASSERT_EQ(run.code, 0) << run.err;
  const std::vector<json> lines = run.lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["weights"], "hot");
  EXPECT_EQ(lines[0]["copies"], 1);
  EXPECT_EQ(lines[1]["weights"], "cold");
  EXPECT_GE(lines[1]["copies"], 2);
  EXPECT_EQ(lines[1]["weight_bytes"], 2048 * 1024 * 2);
  const Outcome text = coppice(arguments + kQuick);
  EXPECT_EQ(std::count(text.out.begin(), text.out.end(), '\n'), 4) << text.out;
  EXPECT_NE(text.out.find("2048x1024"), std::string::npos);
}

TEST_F(Cli, BenchModelTestsPromptsAndGenerationAtDepths) {
  const Outcome run = coppice(std::string("bench model -p 40,0 -n 4 -d 0,33 -r 2 --json") + kTiny);
  ASSERT_EQ(run.code, 0) << run.err;
  const std::vector<json> lines = run.lines();
  ASSERT_EQ(lines.size(), 4u);
  const char* names[] = {"pp40", "tg4", "pp40 @ d33", "tg4 @ d33"};
  for (size_t i = 0; i < lines.size(); ++i) {
    const json& line = lines[i];
    EXPECT_EQ(line["test"], names[i]);
    EXPECT_EQ(line["n_depth"], i < 2 ? 0 : 33);
    EXPECT_EQ(line["repetitions"], 2);
    const double tokens = line["n_prompt"].get<double>() + line["n_gen"].get<double>();
    EXPECT_NEAR(line["tokens_per_second"].get<double>() * line["ms"].get<double>(), 1e3 * tokens,
                1e-6 * tokens);
    EXPECT_EQ(line["model"], "random:tiny");
    EXPECT_EQ(line["threads"], 1);
    EXPECT_GT(line["weight_bytes"], 0);
  }
  const Outcome text = coppice(std::string("bench model -p 8 -n 2 -r 1") + kTiny);
  EXPECT_NE(text.out.find("tokens/s"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("\ntg2 "), std::string::npos) << text.out;
}

// The steps are those that llama-batched-bench would take: a row per sequence and token.
TEST_F(Cli, BenchBatchedTakesTheStepsThatItSays) {
  const std::string cases = "bench batched -npp 24 -ntg 3 -npl 1,5 -r 1 --json --profile";
  for (const bool shared : {true, false}) {
    const Outcome run = coppice(cases + (shared ? " -pps" : "") + kTiny);
    ASSERT_EQ(run.code, 0) << run.err;
    const std::vector<json> lines = run.lines();
    ASSERT_EQ(lines.size(), 2u);
    for (const json& line : lines) {
      const int64_t b = line["pl"], prompt_rows = shared ? 24 : 24 * b;
      EXPECT_EQ(line["is_pp_shared"], shared);
      EXPECT_EQ(line["n_kv"], prompt_rows + 3 * b);
      EXPECT_EQ(line["profile_pp"]["rows"], prompt_rows);
      EXPECT_EQ(line["profile_tg"]["steps"], 3);
      EXPECT_EQ(line["profile_tg"]["rows"], 3 * b);
      const double t_pp = line["t_pp"], t_tg = line["t_tg"];
      EXPECT_NEAR(line["speed_pp"].get<double>() * t_pp, static_cast<double>(prompt_rows), 1e-6);
      EXPECT_NEAR(line["speed_tg"].get<double>() * t_tg, static_cast<double>(3 * b), 1e-6);
      EXPECT_DOUBLE_EQ(line["t"].get<double>(), t_pp + t_tg);
      EXPECT_NEAR(line["speed"].get<double>() * (t_pp + t_tg), line["n_kv"].get<double>(), 1e-6);
    }
  }
  const Outcome text =
      coppice(std::string("bench batched --npp 8 --ntg 2 --npl 2 -r 1 --profile") + kTiny);
  EXPECT_EQ(text.out.find("|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |"), 0u)
      << text.out;
  EXPECT_NE(text.out.find("tg: 2 steps of 4 rows"), std::string::npos) << text.out;
}

// Of a step's operations, the parts make the whole, and attention reads a shared prompt once.
TEST_F(Cli, AProfileAddsUp) {
  const auto generation = [&](const std::string& more) {
    const Outcome run =
        coppice("bench batched -npp 64 -ntg 2 -npl 8 -r 1 --json --profile" + more + kTiny);
    EXPECT_EQ(run.code, 0) << run.err;
    return run.lines().at(0)["profile_tg"];
  };
  const json shared = generation(" -pps"), own = generation("");
  double ms = 0, share = 0;
  for (const json& operation : shared["operations"]) {
    ms += operation["ms"].get<double>();
    share += operation["share"].get<double>();
  }
  EXPECT_NEAR(ms, shared["ms"].get<double>(), 1e-6);
  EXPECT_NEAR(share, 1.0, 1e-9);
  const auto find = [](const json& profile, const std::string& name) {
    for (const json& operation : profile["operations"]) {
      if (operation["name"] == name) return operation;
    }
    ADD_FAILURE() << "no " << name << " in " << profile;
    return json();
  };
  EXPECT_EQ(find(shared, "attention")["flops"], find(own, "attention")["flops"]);
  EXPECT_LT(find(shared, "attention")["bytes"].get<double>(),
            find(own, "attention")["bytes"].get<double>() / 3);
  const json logits = find(shared, "product logits [300, 64] bf16");
  EXPECT_EQ(logits["calls"], 2);
  EXPECT_EQ(logits["flops"], 2.0 * 2 * 8 * 300 * 64);
  EXPECT_GT(logits["ceiling_share"], 0.0);
  EXPECT_TRUE(find(shared, "sampling")["gflops"].is_null());
}

TEST_F(Cli, GenerateSaysWhereTimeWentOnStandardError) {
  const std::string arguments = std::string("generate -p hello -n 3 --ignore-eos") + kTiny;
  const Outcome plain = coppice(arguments);
  EXPECT_EQ(plain.err, "");
  const Outcome text = coppice(arguments + " --profile");
  EXPECT_EQ(text.code, 0);
  EXPECT_EQ(text.err.find("3 steps of 7 rows, "), 0u) << text.err;  // "hello" is 5 bytes
  const Outcome lines = coppice(arguments + " --profile --json");
  EXPECT_EQ(lines.lines().size(), 1u);
  EXPECT_EQ(json::parse(lines.err)["profile"]["steps"], 3);
}

TEST_F(Cli, BenchAttentionPresetsEndWithGeometricMeans) {
  const Outcome run = coppice(
      std::string("bench attention --preset paper-table3 --heads 1 --kv-heads 1 --head-dim 16") +
      kQuick + " --json");
  ASSERT_EQ(run.code, 0) << run.err;
  std::vector<json> lines = run.lines();
  ASSERT_EQ(lines.size(), 13u);
  const json summary = lines.back()["summary"];
  lines.pop_back();
  ASSERT_EQ(summary["floor_fractions"].size(), 12u);
  double logs = 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    const json& line = lines[i];
    EXPECT_EQ(summary["floor_fractions"][i]["name"], line["name"]);
    EXPECT_EQ(line["preset"], "paper-table3");
    EXPECT_NE(line["origin"].get<std::string>().find("Table 3"), std::string::npos);
    EXPECT_EQ(line["heads"], 1);
    EXPECT_EQ(line["batch"], 32);
    EXPECT_TRUE(line["tree"].is_null());
    EXPECT_TRUE(line["bit_equal"]);
    EXPECT_EQ(line["plans_equal"], line["shared"] == 0) << line;
    EXPECT_LT(line["rel_err"], 1e-5);
    // The ceilings of the end are no lower than those a row was printed with.
    const double at_the_end = summary["floor_fractions"][i]["floor_fraction"];
    EXPECT_LE(at_the_end, line["floor_fraction"].get<double>() + 1e-12);
    logs += std::log(at_the_end) / 12;
  }
  EXPECT_EQ(summary["cases"], 12);
  EXPECT_EQ(summary["floor_fractions"][11]["floor_fraction"], lines.back()["floor_fraction"]);
  EXPECT_NEAR(summary["floor_fraction"].get<double>(), std::exp(logs), 1e-9);
  EXPECT_GT(summary["best_shared_pages_ratio"], 0.0);
}

// Levels that do not divide one another: every level has the nodes it says, each with one parent.
TEST_F(Cli, BenchAttentionTreesHaveTheNodesTheySay) {
  for (const auto& [tree, tokens] : {std::pair("2,3,6/16,4096,16", 2 * 16 + 3 * 4096 + 6 * 16),
                                     {"3,5,7/32,64,16", 3 * 32 + 5 * 64 + 7 * 16}}) {
    const Outcome run =
        coppice(std::string("bench attention --heads 1 --kv-heads 1 --head-dim 16 --json --tree ") +
                tree + kQuick);
    ASSERT_EQ(run.code, 0) << tree << ": " << run.err;
    const json line = run.lines().at(0);
    EXPECT_EQ(line["bytes"], tokens * 16 * 2 * 2) << tree;
    EXPECT_LT(line["rel_err"], 1e-5);
    EXPECT_TRUE(line["bit_equal"]);
  }
}

// What int8 pages cost is in rel_err: the keys and values that were given, not the bytes they
// became.
TEST_F(Cli, BenchAttentionHoldsInt8AgainstWhatWasGiven) {
  const Outcome run = coppice(
      std::string("bench attention --heads 4 --kv-heads 2 --head-dim 64 --batch 4 --shared 300 "
                  "--private 40 --kv-type int8 --json") +
      kQuick);
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_GT(run.lines().at(0)["rel_err"], 1e-3);
  EXPECT_LE(run.lines().at(0)["rel_err"], 2e-2);
}

TEST_F(Cli, BenchAttentionTakesRaggedSequences) {
  const Outcome run = coppice(
      std::string("bench attention --preset ragged --heads 2 --kv-heads 1 --head-dim 16") + kQuick);
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_NE(run.out.find("zipf 8"), std::string::npos) << run.out;
  EXPECT_NE(run.out.find("geometric means of 4 cases: floor fraction "), std::string::npos)
      << run.out;
}

TEST_F(Cli, BenchTokenizeCountsBytesAndTokens) {
  std::string words;
  for (int i = 0; i < 500; ++i) words += "the shop sells item " + std::to_string(i) + ".\n";
  const std::string path = file("words.txt", words);
  const Outcome run = coppice("bench tokenize --rounds 2 --seconds 0 --json --file " + path);
  ASSERT_EQ(run.code, 0) << run.err;
  const json line = run.lines().at(0);
  EXPECT_EQ(line["bytes"], words.size());
  EXPECT_GT(line["tokens"], 500);
  EXPECT_LE(line["tokens"], words.size());
  EXPECT_NEAR(line["mb_per_second"].get<double>() * line["seconds"].get<double>() * 1e6,
              static_cast<double>(words.size()), 1e-3);
  EXPECT_NE(coppice("bench tokenize --rounds 1 --seconds 0 --file " + path).out.find(" MB/s, "),
            std::string::npos);
}

TEST_F(Cli, BenchPaperWritesPageDataAndCharts) {
  const std::filesystem::path out = dir_ / "made" / "bench";
  const Outcome run = coppice("bench paper --scale 64 --every 4 --out " + out.string() + kQuick);
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out, (out / "paper.md").string() + "\n");
  const json report = json::parse(*read_file((out / "paper.json").string()));
  EXPECT_EQ(report["table1"].size(), 9u);
  EXPECT_EQ(report["table3"].size(), 12u);
  EXPECT_EQ(report["figure3"].size(), 10u);
  EXPECT_EQ(report["command"],
            "coppice bench paper --threads 1 --rounds 1 --seconds 0.0 --every 4 --scale 64");
  for (const json& row : report["figure3"]) EXPECT_GT(row["two_phase"], 0.0) << row;
  EXPECT_EQ(report["figure3"][9]["n_c"], 4096 / 64);
  EXPECT_NE(read_file((out / "paper.md").string())->find("divided by 64"), std::string::npos);
  for (const char* chart : {"table3.svg", "figure3.svg"}) {
    EXPECT_EQ(read_file((out / chart).string())->find("<svg "), 0u);
  }
}

TEST_F(Cli, BenchGateHoldsATierAgainstOff) {
  const std::string shape =
      "bench gate --shared 256 --own 32 --users 4 --generate 4 -r 2 --held-shared 512 "
      "--held-own 256 --held-generate 32 --held-users 4 --json";
  const Outcome run = coppice(shape + " --gate policy:random,keep=0.25,window=8" + kTiny);
  ASSERT_EQ(run.code, 0) << run.err;
  const json line = run.lines().front();
  EXPECT_EQ(line["rounds"], 2);
  EXPECT_EQ(line["tier"], "normal");
  // A quarter of the tokens, in whole pages, with an overlay.
  const double off = line["prefix_bytes_off"], gated = line["prefix_bytes_gated"];
  EXPECT_GT(off / gated, 1.8);
  EXPECT_LT(off / gated, 4);
  EXPECT_DOUBLE_EQ(line["prefix_bytes_ratio"], off / gated);
  EXPECT_GT(line["bytes_gated"].get<double>(), gated);
  EXPECT_EQ(line["held_at_once_off"], 4);
  EXPECT_GT(line["held_at_once_gated"].get<int>(), 4);
  for (const char* key : {"attention_speedup", "decode_speedup", "prefill_cost"}) {
    EXPECT_GT(line[key].get<double>(), 0) << key;
  }
  // What keeps everything holds no less.
  const Outcome all = coppice(shape + " --no-held --random-gate point" + kTiny);
  ASSERT_EQ(all.code, 0) << all.err;
  EXPECT_FALSE(all.lines().front().contains("held_at_once_ratio"));
  EXPECT_LE(all.lines().front()["prefix_bytes_ratio"].get<double>(), 1.0);
  const Outcome text = coppice(
      "bench gate --shared 64 --own 8 --users 2 --generate 2 -r 1 --no-held "
      "--random-gate causal" +
      std::string(kTiny));
  ASSERT_EQ(text.code, 0) << text.err;
  EXPECT_NE(text.out.find("prefill "), std::string::npos) << text.out;
  for (const char* wrong : {"bench gate", "bench gate --random-gate global",
                            "bench gate --random-gate point --kv-tier off",
                            "bench gate --random-gate point --held-own 64"}) {
    EXPECT_EQ(coppice(std::string(wrong) + kTiny).code, 2) << wrong;
  }
}

TEST_F(Cli, BenchCommandsSayWhatTheyTake) {
  const std::pair<std::string, const char*> cases[] = {
      {"gemm --rows 0", "--rows is 0; it takes 1 to 4096"},
      {"gemm --rows 1,,2", "--rows is \"\"; it takes 1 to 4096"},
      {"gemm --shapes 12", "--shapes holds \"12\"; it takes outputs x inputs"},
      {"gemm --shapes 12x0", "--shapes is 0; it takes 1 to"},
      {"gemm --shapes 64x100 --types Q4_0", "64x100: Q4_0 takes inputs"},
      {"gemm --types Q3_K", "--types holds \"Q3_K\"; it takes f32,bf16,Q8_0,Q4_0,Q4_K,Q5_K,Q6_K"},
      {"gemm --isa sse", "--isa \"sse\" is not one of auto"},
      {"gemm --seconds -1", "--seconds"},
      {"gemm --rounds 0", "--rounds is 0; it takes 1 to 100000"},
      {"model -p 0 -n 0", "-p and -n are both 0"},
      {"model -r 0", "--repetitions is 0; it takes 1 to 10000"},
      {"model -d x", "--n-depth is \"x\"; it takes 0 to 16777216"},
      {"model --random-weights tiny -t 1 -c 64 -p 100", "--ctx is 64"},
      {"batched -npl 0", "--npl is 0; it takes 1 to 4096"},
      {"batched --npp 1,0", "--npp is 0; it takes 1 to 16777216"},
      {"batched -npp", "--npp"},
      {"batched --random-weights tiny -t 1 --npl 301", "--npl 301 needs as many different tokens"},
      {"tokenize", "--file"},
      {"tokenize --file ''", "--file: is empty"},
      {"attention --preset x", "--preset is \"x\"; it takes reference, paper-table3, trees or"},
      {"attention --preset trees --batch 3", "--preset accepts no --batch"},
      {"attention --preset ''", "--preset: is empty"},
      {"attention --tree 2147483647,2147483647/2147483647,2147483647",
       "--tree accepts total nodes"},
      {"attention --tree 16777216,16777216/16777216,16777216",
       "these are 33554432 and 562949953421"},
      {"paper --scale 0", "--scale is 0; it takes 1 to 256"},
      {"paper --out ''", "--out: is empty"},
  };
  for (const auto& [arguments, named] : cases) {
    const Outcome run = coppice("bench " + arguments);
    EXPECT_EQ(run.code, 2) << arguments;
    EXPECT_NE(run.err.find(named), std::string::npos) << arguments << ": " << run.err;
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
  }
}

TEST_F(Cli, WhatABenchCannotHoldItNames) {
  const std::pair<std::string, const char*> cases[] = {
      {"batched --npp 4096 --npl 64 --kv-budget 4M --random-weights tiny -t 1",
       "--kv-budget is 4.0 MiB"},
      {"tokenize --file " + file("empty", ""), "is empty"},
      {"tokenize --file /nowhere", "/nowhere"},
      {"paper --out " + file("taken", "x"), "name another --out"},
  };
  for (const auto& [arguments, named] : cases) {
    const Outcome run = coppice("bench " + arguments);
    EXPECT_EQ(run.code, 1) << arguments << run.err;
    EXPECT_NE(run.err.find(named), std::string::npos) << arguments << ": " << run.err;
  }
}

// Repetitions that began alike would share what the first computed, and the run would not count.
TEST_F(Cli, BenchModelRepeatsWithoutHits) {
  const Outcome run =
      coppice(std::string("bench model -p 16 -n 2 -d 0,5 -r 60 --seed 1 --json") + kTiny);
  ASSERT_EQ(run.code, 0) << run.err;
  for (const json& line : run.lines()) EXPECT_EQ(line["repetitions"], 60);
  const Outcome many = coppice(std::string("bench model -p 1 -r 10000") + kTiny);
  EXPECT_EQ(many.code, 2);
  EXPECT_NE(many.err.find("--repetitions is 10000"), std::string::npos) << many.err;
}

TEST_F(Cli, AnInterruptedBenchEndsBeforeItsNextCase) {
  const char* const commands[] = {"gemm --rows 1,2,3,4,5,6,7,8 --shapes 512x512 --types bf16",
                                  "attention --preset trees"};
  for (const char* command : commands) {
    const Outcome run = interrupted(std::string("bench ") + command + kQuick, 1, SIGINT);
    EXPECT_EQ(run.code, 1) << command << run.err;
    EXPECT_NE(run.err.find("interrupted"), std::string::npos) << run.err;
  }
}

TEST_F(Cli, BenchSecondsAreANumber) {
  for (const char* seconds : {"nan", "inf", "-1", "3601"}) {
    const Outcome run = coppice(std::string("bench gemm --seconds ") + seconds);
    EXPECT_EQ(run.code, 2) << run.err;
    EXPECT_NE(run.err.find("--seconds"), std::string::npos) << run.err;
  }
}

TEST_F(Cli, BenchHelpHasUnitsAndDefaults) {
  const std::pair<const char*, std::vector<const char*>> cases[] = {
      {"gemm",
       {"GFLOP/s", "(default 1,8,32,128,512)", "(default 9)", "(default 0.3)", "microseconds"}},
      {"model", {"(default 512)", "(default 128)", "(default 0)", "(default 5)", "--profile"}},
      {"batched", {"(default 128)", "(default 1,8,32)", "(default 3)", "--pps"}},
      {"attention", {"--preset", "(default 8)", "_us are"}},
      {"tokenize", {"MB/s (10^6 bytes)", "--file"}},
      {"paper", {"(default docs/bench)", "(default 16)"}},
  };
  for (const auto& [command, parts] : cases) {
    const Outcome help = coppice(std::string("bench ") + command + " --help");
    EXPECT_EQ(help.code, 0);
    for (const char* part : parts) {
      EXPECT_NE(help.out.find(part), std::string::npos) << part << "\n" << help.out;
    }
  }
}

}  // namespace
}  // namespace coppice
