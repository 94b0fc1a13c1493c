// The command as users run it: flags, streams, exit codes.
#include <gtest/gtest.h>

#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli_fixture.h"

namespace coppice {
namespace {

using nlohmann::json;

std::string numbered(int i) {
  std::string id(1, 'r');
  id += std::to_string(i);
  return id;
}

TEST_F(Cli, ASinglePromptStreamsText) {
  const Outcome run = generate("-p 'Hello there' -n 8");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_GT(run.out.size(), 1u);
  EXPECT_EQ(run.out.back(), '\n');
  EXPECT_EQ(run.err, "");
  const json line = generate("-p 'Hello there' -n 8 --json").lines().at(0);
  EXPECT_EQ(run.out, line["text"].get<std::string>() + "\n");
}

TEST_F(Cli, OutputThatCannotBeWrittenIsAFailure) {
  const int status = std::system(COPPICE_BINARY " generate -m " COPPICE_TEST_DATA
                                                "/models/llama --kv-budget 64M -t 1 -p Hello -n 4"
                                                " --json > /dev/full 2> /dev/null");
  EXPECT_EQ(WEXITSTATUS(status), 1);
}

TEST_F(Cli, ABatchStopsAtTheFirstLineThatCannotBeWritten) {
  std::string batch;
  for (int i = 0; i < 4000; ++i) {
    batch +=
        json{{"prompt", "a"}, {"max_tokens", i == 0 ? 1 : 500}, {"ignore_eos", true}}.dump() + "\n";
  }
  // All of it would take many times the processor time that it is given.
  const std::string command = "ulimit -t 10; " COPPICE_BINARY " generate -m " COPPICE_TEST_DATA
                              "/models/llama -t 1 --batch " +
                              file("b.jsonl", batch) + " >/dev/full 2>" + (dir_ / "err").string();
  const int status = std::system(command.c_str());
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_EQ(*read_file((dir_ / "err").string()),
            "coppice: standard output cannot be written; some of it is lost\n");
}

// A short answer, a long one, a shorter one, and more than there is time for.
TEST_F(Cli, AnInterruptedBatchKeepsWhatIsFinished) {
  std::string batch;
  for (int i = 0; i < 300; ++i) {
    const int tokens = i == 0 ? 8 : i == 2 ? 2 : 500;
    batch += json{{"id", i}, {"prompt", "a"}, {"max_tokens", tokens}, {"ignore_eos", true}}.dump() +
             "\n";
  }
  const std::string path = file("b.jsonl", batch);
  for (const int signal : {SIGINT, SIGTERM}) {
    const Outcome run = interrupted(
        "generate -m " COPPICE_TEST_DATA "/models/llama -t 1 --batch " + path, 1, signal);
    EXPECT_EQ(run.code, 1) << run.err;
    const std::vector<json> lines = run.lines();
    ASSERT_EQ(lines.size(), 301u);
    EXPECT_EQ(lines[0]["tokens"].size(), 8u);
    EXPECT_EQ(lines[1]["finish_reason"], "cancelled");
    EXPECT_GE(lines[1]["tokens"].size(), 7u);  // the part generated
    EXPECT_EQ(lines[2]["tokens"].size(), 2u);
    EXPECT_EQ(lines[299]["id"], 299);
    EXPECT_EQ(lines[299]["finish_reason"], "cancelled");
    EXPECT_EQ(lines[300]["summary"]["requests"], 300);
    EXPECT_EQ(run.err, "coppice generate: interrupted; 298 of 300 answers cancelled\n");
  }
}

// What has nothing to show yet says so, and does not go on for the rest of its time, which would be
// many minutes.
TEST_F(Cli, AnInterruptedMeasurementOrEvaluationSaysSo) {
  for (const std::string& arguments :
       {std::string("bench attention --heads 8 --kv-heads 8 --head-dim 64 --batch 8 --shared 1024 "
                    "--rounds 100000 -t 1"),
        std::string("eval --facts 64 --samples 5000 -t 1")}) {
    const Outcome run = interrupted_when_it_listens(arguments);
    EXPECT_EQ(run.code, 1) << arguments;
    EXPECT_EQ(run.out, "") << arguments;
    EXPECT_NE(run.err.find("interrupted"), std::string::npos) << run.err;
    EXPECT_LT(run.seconds_after_signal, 60) << arguments;
  }
}

TEST_F(Cli, AnInterruptedPaperLeavesNoFolder) {
  const Outcome run = interrupted_when_it_listens("bench paper --scale 16 --seconds 60 --out " +
                                                  (dir_ / "new" / "a" / "b").string());
  EXPECT_EQ(run.code, 1) << run.err;
  EXPECT_NE(run.err.find("interrupted"), std::string::npos) << run.err;
  EXPECT_FALSE(std::filesystem::exists(dir_ / "new"));
}

TEST_F(Cli, ALimitOfFileSizesIsAnErrorAndLeavesNothing) {
  const std::string out = (dir_ / "q.gguf").string(), err = (dir_ / "err").string();
  const std::string command = "ulimit -f 16; " COPPICE_BINARY
                              " quantize --random-weights tiny --type F32 --out " +
                              out + " 2>" + err;
  const int status = std::system(command.c_str());
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_EQ(*read_file(err), "coppice: " + out + ": cannot write: File too large\n");
  EXPECT_FALSE(std::filesystem::exists(out));
  EXPECT_FALSE(std::filesystem::exists(out + ".partial"));
}

TEST_F(Cli, AnInterruptedTextEndsWithItsLine) {
  const Outcome run = interrupted("generate -t 1 -p a -n 8000 --ignore-eos", 1, SIGINT);
  EXPECT_EQ(run.code, 1);
  EXPECT_EQ(run.out.back(), '\n');
  EXPECT_EQ(run.err, "coppice generate: interrupted; 1 of 1 answers cancelled\n");
}

TEST_F(Cli, ARefusedPromptPrintsNothing) {
  const Outcome run =
      coppice("generate -m " COPPICE_TEST_DATA "/models/llama -p x --kv-budget 64K");
  EXPECT_EQ(run.code, 1);
  EXPECT_EQ(run.out, "");
}

TEST_F(Cli, WriteBatchToStandardOutputAndThroughALink) {
  const std::string target = (dir_ / "target").string(), link = (dir_ / "link").string();
  std::filesystem::create_symlink(target, link);
  const Outcome run = coppice("eval --samples 3 --write-batch -");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.lines().size(), 3u);
  EXPECT_FALSE(std::filesystem::exists("-"));
  EXPECT_EQ(coppice("eval --samples 3 --write-batch " + link).code, 0);
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(*read_file(target), run.out);
  const Outcome directory = coppice("eval --samples 3 --write-batch " + dir_.string());
  EXPECT_EQ(directory.code, 1);
  EXPECT_NE(directory.err.find("directory"), std::string::npos) << directory.err;
  EXPECT_FALSE(std::filesystem::exists(dir_.string() + ".partial"));
}

// The bundled model knows the form of a needle's fact, and filler beside it does not disturb it.
TEST_F(Cli, EvalAsksFamiliesOfTasks) {
  const Outcome run =
      coppice("eval --tasks needle,variables --length 128 --hops 1 --samples 8 --json");
  ASSERT_EQ(run.code, 0) << run.err;
  ASSERT_EQ(run.lines().size(), 2u);
  const json needle = run.lines().at(0), variables = run.lines().at(1);
  EXPECT_EQ(needle["task"], "needle");
  EXPECT_EQ(needle["length"], 128);
  EXPECT_EQ(needle["haystack"], "h1");
  EXPECT_EQ(needle["samples"], 8);
  EXPECT_GE(needle["exact"].get<int>(), 6);
  EXPECT_EQ(variables["hops"], 1);
  const std::string flags =
      "eval --tasks lookup --haystack h2 --samples 4 --write-batch - --length 256,512";
  const Outcome batch = coppice(flags);
  ASSERT_EQ(batch.code, 0) << batch.err;
  ASSERT_EQ(batch.lines().size(), 8u);
  const std::string prompt = batch.lines().at(7)["prompt"];
  EXPECT_TRUE(prompt.starts_with("The key is ")) << prompt;
  EXPECT_EQ(batch.out, coppice(flags).out);
}

TEST_F(Cli, EvalComparesPoliciesAndGoesOnFromWhatItHas) {
  const std::string out = (dir_ / "policies").string();
  const std::string flags =
      "eval --tasks system-prompt,markov --length 128 --samples 6 --per-shop 3 --seeds 1 "
      "--policies full,window,random --budgets 50 --json --out " +
      out;
  const Outcome run = coppice(flags);
  ASSERT_EQ(run.code, 0) << run.err;
  ASSERT_EQ(run.lines().size(), 7u);  // three policies on two tasks, and what they amount to
  const json summary = run.lines().back().at("summary");
  ASSERT_EQ(summary["all"].size(), 3u);
  const json window = summary["all"][1];
  EXPECT_EQ(window["policy"], "window");
  EXPECT_EQ(window["samples"], 6);
  EXPECT_LE(window["held"].get<double>(), 0.5);
  EXPECT_LE(window["loss_interval"][0].get<double>(), window["loss_points"].get<double>());
  EXPECT_TRUE(window.contains("nats_per_token"));
  const std::string outcomes = *read_file(out + "/outcomes.jsonl");
  for (const char* file : {"report.json", "report.md", "accuracy.svg"}) {
    EXPECT_TRUE(std::filesystem::exists(out + "/" + file)) << file;
  }
  // Nothing is asked again; a line that was cut off is.
  const Outcome again = coppice(flags);
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(again.lines().size(), 1u);
  EXPECT_EQ(again.lines().back().at("summary")["all"], summary["all"]);
  ASSERT_TRUE(write_file(out + "/outcomes.jsonl", outcomes.substr(0, outcomes.size() - 9)));
  EXPECT_EQ(coppice(flags).lines().size(), 2u);
  EXPECT_EQ(*read_file(out + "/outcomes.jsonl"), outcomes);
  const Outcome other = coppice(flags + " --window 32");
  EXPECT_EQ(other.code, 2);
  EXPECT_NE(other.err.find("other settings"), std::string::npos) << other.err;
  ASSERT_TRUE(write_file(out + "/outcomes.jsonl",
                         outcomes.substr(0, outcomes.find('\n') + 1) + "{\"policy\": 1}\n"));
  const Outcome damaged = coppice(flags);
  EXPECT_EQ(damaged.code, 1);
  EXPECT_NE(damaged.err.find("outcomes.jsonl, line 2"), std::string::npos) << damaged.err;
}

TEST_F(Cli, DamagedModelFilesAreNamed) {
  namespace fs = std::filesystem;
  const fs::path model = dir_ / "damaged";
  fs::copy(COPPICE_TEST_DATA "/models/llama", model);
  const std::string tokenizer = (model / "tokenizer.json").string();
  ASSERT_TRUE(write_file(tokenizer, "oops"));
  const Outcome run = coppice("generate -p x -m " + model.string());
  EXPECT_EQ(run.code, 1);
  EXPECT_EQ(run.err, "coppice: " + tokenizer + ": is not JSON at byte 1\n");
  fs::copy_file(COPPICE_TEST_DATA "/models/llama/tokenizer.json", tokenizer,
                fs::copy_options::overwrite_existing);
  json config = json::parse(*read_file((model / "config.json").string()));
  config["num_hidden_layers"] = 1;
  ASSERT_TRUE(write_file((model / "config.json").string(), config.dump()));
  const Outcome less = coppice("generate -p x -m " + model.string());
  EXPECT_EQ(less.code, 1);
  EXPECT_EQ(less.err.find("coppice: " + model.string() + ": has a tensor \"model.layers.1"), 0u)
      << less.err;
}

TEST_F(Cli, WarningsNameLineAndFlag) {
  const Outcome batch = generate("--batch " + file("b.jsonl",
                                                   "{\"prompt\": \"a\", \"max_tokens\": 1}\n"
                                                   "{\"prompt\": \"a\", \"oops\": 1}\n"));
  EXPECT_EQ(batch.code, 0);
  EXPECT_NE(batch.err.find("\"oops\" is unknown and ignored (first in line 2)"), std::string::npos)
      << batch.err;
  const Outcome text = generate("-p x -n 1 --logprobs");
  EXPECT_EQ(text.code, 0);
  EXPECT_NE(text.err.find("--logprobs shows only with --json"), std::string::npos) << text.err;
  EXPECT_EQ(generate("-p x -n 1 --logprobs --json").err, "");
  const Outcome one = generate("--batch " + file("b.jsonl", "{}"));
  EXPECT_NE(one.err.find("1 of 1 answers failed"), std::string::npos) << one.err;
}

TEST_F(Cli, ADirectoryIsNotAPrompt) {
  for (const char* flag : {"--prompt-file ", "--batch "}) {
    const Outcome run = generate(flag + dir_.string());
    EXPECT_EQ(run.code, 1);
    EXPECT_NE(run.err.find("cannot be read; name a readable file"), std::string::npos) << run.err;
  }
}

TEST_F(Cli, AModelWhoseLogitsAreNotFiniteSaysSo) {
  namespace fs = std::filesystem;
  const fs::path model = dir_ / "broken";
  fs::copy(COPPICE_TEST_DATA "/models/llama", model);
  const std::string weights = (model / "model.safetensors").string();
  std::string bytes = *read_file(weights);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  const json norm = json::parse(bytes.substr(8, header))["model.norm.weight"];
  const size_t begin = 8 + header + norm["data_offsets"][0].get<size_t>();
  const size_t end = 8 + header + norm["data_offsets"][1].get<size_t>();
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(begin),
            bytes.begin() + static_cast<std::ptrdiff_t>(end), '\xff');  // NaN in every float type
  ASSERT_TRUE(write_file(weights, bytes));
  const Outcome run = coppice("generate -m " + model.string() + " -p Hello -n 4 --json");
  EXPECT_EQ(run.code, 1);
  const json line = run.lines().at(0);
  EXPECT_EQ(line["finish_reason"], "error");
  EXPECT_EQ(line["usage"]["completion_tokens"], 0);
  EXPECT_NE(line["error"].dump().find("logits are not finite"), std::string::npos) << line;
}

TEST_F(Cli, WhatQuantizeWritesGenerateReads) {
  const std::string out = (dir_ / "q.gguf").string();
  for (const char* type : {"Q8_0", "q4_0", "BF16"}) {
    const Outcome made = coppice("quantize " COPPICE_TEST_DATA "/models/llama --type " +
                                 std::string(type) + " --out " + out);
    EXPECT_EQ(made.code, 0) << made.err;
    EXPECT_NE(made.err.find("of tensors"), std::string::npos) << made.err;
    EXPECT_EQ(made.out, "");
    const Outcome run = coppice("generate -m " + out + " --kv-budget 64M -p Hello -n 4 --json");
    ASSERT_EQ(run.code, 0) << run.err;
    EXPECT_EQ(run.lines().at(0)["usage"]["completion_tokens"], 4);
  }
  EXPECT_EQ(coppice("quantize --random-weights tiny --out " + out).code, 0);
  const Outcome fallen_back = coppice("quantize --random-weights tiny --type Q4_K --out " + out);
  EXPECT_NE(fallen_back.err.find(" q8_0"), std::string::npos) << fallen_back.err;
  EXPECT_EQ(fallen_back.err.find(" q4_k"), std::string::npos) << fallen_back.err;
  const Outcome large = coppice(
      "quantize --random-weights 65536,1000,64,8,128,200000,200000 --type F32 --out " + out);
  EXPECT_EQ(large.code, 1);
  EXPECT_NE(large.err.find("are free there"), std::string::npos) << large.err;
  const Outcome random =
      coppice("generate --random-weights tiny --kv-budget 16M -p hi -n 4 --json");
  ASSERT_EQ(random.code, 0) << random.err;
  const Outcome same = coppice("generate -m " + out + " --kv-budget 16M -p hi -n 4 --json");
  EXPECT_EQ(random.lines().at(0)["usage"], same.lines().at(0)["usage"]);
}

TEST_F(Cli, QuantizeSaysWhatItTakes) {
  const std::string model = COPPICE_TEST_DATA "/models/llama";
  const std::string out = " --out " + (dir_ / "q.gguf").string();
  const auto refused = [&](const std::string& arguments, int code, const std::string& part) {
    const Outcome run = coppice("quantize " + arguments);
    EXPECT_EQ(run.code, code) << arguments;
    EXPECT_NE(run.err.find(part), std::string::npos) << run.err;
  };
  refused(model + " --type Q3_K" + out, 2, "--type is \"Q3_K\"; it takes Q8_0, Q4_0, Q4_K");
  refused(model + " --type i8" + out, 2, "--type");
  refused(model, 2, "--out");
  refused(out, 2, "quantize takes a model or --random-weights SHAPE");
  refused(model + " --random-weights tiny" + out, 2, "--random-weights");
  refused("--random-weights huge" + out, 2, "--random-weights");
  refused("/nowhere" + out, 1, "/nowhere");
  EXPECT_FALSE(std::filesystem::exists(dir_ / "q.gguf"));
  const Outcome run = coppice("generate -p x --random-weights 1,2,3");
  EXPECT_EQ(run.code, 2);
  EXPECT_NE(run.err.find("--random-weights"), std::string::npos) << run.err;
}

TEST_F(Cli, QuantizeLeavesTheModelAlone) {
  const auto model = dir_ / "model";
  std::filesystem::copy(COPPICE_TEST_DATA "/models/llama", model);
  const std::string weights = (model / "model.safetensors").string();
  const auto size = std::filesystem::file_size(weights);
  const std::string link = (dir_ / "elsewhere.gguf").string();
  std::filesystem::create_symlink(weights, link);
  for (const std::string& out : {weights, link}) {
    const Outcome run = coppice("quantize " + model.string() + " --out " + out);
    EXPECT_EQ(run.code, 2) << out;
    EXPECT_NE(run.err.find("a file of the model itself"), std::string::npos) << run.err;
    EXPECT_EQ(std::filesystem::file_size(weights), size) << out;
  }
  const std::string beside = (model / "again.gguf").string();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(coppice("quantize " + model.string() + " --out " + beside).code, 0);
  }
  EXPECT_EQ(coppice("quantize " + beside + " --out " + beside).code, 2);
  EXPECT_EQ(coppice("quantize " + beside + " --out -").code, 2);
  const std::string nowhere = (dir_ / "no" / "such.gguf").string();
  const Outcome missing = coppice("quantize " + beside + " --out " + nowhere);
  EXPECT_EQ(missing.code, 1);
  EXPECT_NE(missing.err.find(nowhere + ": cannot create"), std::string::npos) << missing.err;
  // The name under which a file is usually written before it takes its own.
  const std::string partial = (dir_ / "next.gguf.partial").string();
  std::filesystem::copy(beside, partial);
  const Outcome run = coppice("quantize " + partial + " --out " + (dir_ / "next.gguf").string());
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(*read_file(partial), *read_file(beside));
}

TEST_F(Cli, QuantizeWritesThroughALink) {
  const auto target = dir_ / "target.gguf", link = dir_ / "link.gguf";
  std::ofstream(target) << "old";
  std::filesystem::create_symlink(target, link);
  const Outcome run = coppice("quantize --random-weights tiny --out " + link.string());
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_GT(std::filesystem::file_size(target), 10000u);
}

TEST_F(Cli, JsonHasEverySettledKey) {
  const Outcome run = generate("-p 'Hello there' --max-tokens 8 --json");
  ASSERT_EQ(run.code, 0) << run.err;
  ASSERT_EQ(run.lines().size(), 1u);
  const json line = run.lines()[0];
  for (const char* key :
       {"id", "index", "text", "tokens", "finish_reason", "usage", "timings", "kv"}) {
    EXPECT_TRUE(line.contains(key)) << key;
  }
  EXPECT_EQ(line["tokens"].size(), 8u);
  EXPECT_EQ(line["finish_reason"], "length");
  EXPECT_EQ(line["usage"]["completion_tokens"], 8);
  EXPECT_EQ(line["usage"]["cached_tokens"], 0);
  for (const char* key : {"ttft", "prefill", "decode", "tokens_per_second"}) {
    EXPECT_TRUE(line["timings"].contains(key)) << key;
  }
  for (const char* key : {"bytes_held", "bytes_unshared", "sharing_factor"}) {
    EXPECT_TRUE(line["kv"].contains(key)) << key;
  }
  EXPECT_FALSE(line.contains("error"));
}

TEST_F(Cli, KeysAndValuesTakeTheBytesOfTheirType) {
  const auto bytes = [&](const std::string& type) {
    const Outcome run = generate("-p 'Hello there' -n 8 --json --kv-type " + type);
    EXPECT_EQ(run.code, 0) << run.err;
    return run.lines().at(0)["kv"]["bytes_unshared"].get<double>();
  };
  const double bf16 = bytes("bf16");
  EXPECT_EQ(bytes("f32"), 2 * bf16);
  // head_dim 16: 16 bytes and a scale for what takes 32.
  EXPECT_EQ(bytes("int8"), 20.0 / 32 * bf16);
}

TEST_F(Cli, FamiliarSpellingsMeanTheSame) {
  const std::string prompt = file("prompt.txt", "Hello there");
  const Outcome a = generate("--prompt 'Hello there' --max-tokens 6 --temperature 0.7 --seed 3");
  const Outcome b = generate("-f " + prompt + " -n 6 --temp 0.7 -s 3 -c 512");
  const Outcome c =
      generate("--prompt-file - --max_tokens=6 --temp 0.7 --seed 3 --ctx 512", prompt);
  EXPECT_EQ(a.code, 0) << a.err;
  EXPECT_EQ(a.out, b.out) << b.err;
  EXPECT_EQ(a.out, c.out) << c.err;
}

TEST_F(Cli, ABatchComesBackInOrderWithASummary) {
  const std::string shared(300, 'x');
  std::string batch;
  for (int i = 0; i < 6; ++i) {
    batch += json{{"id", numbered(i)},
                  {"prompt", shared + " question " + std::to_string(i)},
                  {"max_tokens", 12 - i},
                  {"ignore_eos", true}}
                 .dump() +
             "\n";
  }
  const Outcome run = generate("--batch " + file("b.jsonl", batch));
  ASSERT_EQ(run.code, 0) << run.err;
  const std::vector<json> lines = run.lines();
  ASSERT_EQ(lines.size(), 7u);
  int64_t cached = 0;
  for (int i = 0; i < 6; ++i) {
    const json& line = lines[static_cast<size_t>(i)];
    EXPECT_EQ(line["id"], numbered(i));
    EXPECT_EQ(line["index"], i);
    EXPECT_EQ(line["tokens"].size(), static_cast<size_t>(12 - i));
    cached += line["usage"]["cached_tokens"].get<int64_t>();
  }
  const json& summary = lines[6]["summary"];
  EXPECT_EQ(summary["requests"], 6);
  EXPECT_EQ(summary["usage"]["completion_tokens"], 12 + 11 + 10 + 9 + 8 + 7);
  EXPECT_EQ(summary["usage"]["cached_tokens"], cached);
  EXPECT_GT(cached, 0);
  EXPECT_GT(summary["timings"]["wall_ms"].get<double>(), 0.0);
  // Pages hold whole tokens, so without sharing it could not pass 1.
  EXPECT_GT(summary["kv"]["sharing_factor"].get<double>(), 1.0);
}

// Two requests in company and the same two alone: the same tokens, whatever the partition.
TEST_F(Cli, ABatchAnswersAsEachAloneDoes) {
  const std::string one = R"({"prompt": [5, 6, 7, 8, 9, 10, 11, 12], "max_tokens": 9})";
  const std::string two = R"({"prompt": [5, 6, 7, 8, 9, 10, 99, 12], "max_tokens": 9})";
  const auto tokens = [&](const std::string& text, const std::string& more) {
    std::vector<json> out;
    for (const json& line : generate("--batch " + file("b.jsonl", text) + more).lines()) {
      if (line.contains("tokens")) out.push_back(line["tokens"]);
    }
    return out;
  };
  const auto both = tokens(one + "\n" + two, "");
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(tokens(one, "").at(0), both[0]);
  EXPECT_EQ(tokens(two, " --slice 1").at(0), both[1]);
  EXPECT_EQ(tokens(one + "\n" + two, " --attention per-sequence"), both);
}

TEST_F(Cli, ABadLineIsAnErrorInItsPlace) {
  const std::string batch = file("b.jsonl",
                                 "{\"prompt\": \"a\", \"max_tokens\": 2}\n"
                                 "{\"id\": 7, \"prompt\": \"b\", \"top_p\": \"x\"}\n"
                                 "\n"
                                 "{\"prompt\": [999999]}\n"
                                 "{\"messages\": []}\n"
                                 "{\"prompt\": \"c\", \"max_tokens\": 2}\n");
  const Outcome run = generate("--batch " + batch);
  EXPECT_EQ(run.code, 1);
  EXPECT_NE(run.err.find("3 of 5 answers failed"), std::string::npos) << run.err;
  const std::vector<json> lines = run.lines();
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(lines[0]["finish_reason"], "length");
  EXPECT_EQ(lines[1]["id"], 7);
  EXPECT_EQ(lines[1]["finish_reason"], "error");
  EXPECT_EQ(lines[1]["error"]["message"].get<std::string>().find("line 2: top_p"), 0u);
  EXPECT_EQ(lines[2]["error"]["message"].get<std::string>().find("line 4: prompt[0]"), 0u);
  EXPECT_EQ(lines[3]["error"]["code"], "unsupported");
  EXPECT_EQ(lines[4]["finish_reason"], "length");
  EXPECT_EQ(lines[5]["summary"]["errors"], 3);
}

TEST_F(Cli, ChoicesAndLogprobs) {
  const Outcome run =
      generate("-p hello -n 3 --n 2 --temp 1 --seed 5 --logprobs --top-logprobs 2 --json");
  ASSERT_EQ(run.code, 0) << run.err;
  const std::vector<json> lines = run.lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1]["index"], 1);
  EXPECT_EQ(lines[1]["logprobs"].size(), lines[1]["tokens"].size());
  EXPECT_EQ(lines[1]["logprobs"][0]["top"].size(), 2u);
}

TEST_F(Cli, WrongFlagsExitWith2AndSayWhatIsAccepted) {
  const std::pair<const char*, const char*> cases[] = {
      {"generate -p x --frobnicate", "--frobnicate"},
      {"generate", "--prompt-file FILE"},
      {"generate -p x --batch y", "one of"},
      {"generate -p x --ctx many", "--ctx"},
      {"generate -p x --dtype f16", "bf16 or f32"},
      {"generate -p x --weights q8_0", "auto or int8"},
      {"generate -p x --kv-type q4", "bf16, f32 or int8"},
      {"generate -p x --kv-budget 3Q", "K, M or G"},
      {"generate -p x --memory -1", "--memory"},
      {"generate -p x --attention both", "two-phase or per-sequence"},
      {"generate -p x --isa sse", "avx2"},
      {"generate -p x --kv-tier soft", "off, mild, normal or hard"},
      {"generate -p x --device tpu", "cpu or cuda"},
      {"generate -p x --log-format xml", "text or json"},
      {"generate -p x --top-p 3", "--top-p is 3"},
      {"generate -p x --max_tokens 0", "--max-tokens is 0"},
      {"generate -p x --stop-token-ids 5,abc", "; --stop-token-ids ID,...: token ids"},
      {"generate -p x --top-logprobs 3", "--top-logprobs needs --logprobs"},
      {"generate -p x --stop-token-ids 99999", "--stop-token-ids holds 99999"},
      {"generate -p x -n 2147483648", "--max-tokens is 2147483648; it takes 1 to 16777216"},
      {"generate -p x --min-tokens 16777217", "--min-tokens is 16777217; it takes 0 to 16777216"},
      {"generate -p x --n 129", "--n is 129; it takes 1 to 128"},
      {"generate -p x --threads 99999999999", "--threads is 99999999999; it takes 0 to 1024"},
      {"generate -p x --ctx 99999999999999999999", "it takes 0 to 16777216"},
      {"generate -p x -s 18446744073709551616", "it takes 0 to 18446744073709551615"},
      {"generate -p x --kv-budget ''", "--kv-budget: is empty"},
      {"generate -p x --memory ''", "--memory: is empty"},
      {"generate -p x -m ''", "--model: is empty"},
      {"generate --batch ''", "--batch: is empty"},
      {"eval --write-batch ''", "--write-batch: is empty"},
      {"eval --samples 0", "--samples is 0; it takes 1 to 1048576"},
      {"eval --tasks needles", "--tasks: no task needles (storefront, needle, "},
      {"eval --tasks markov", "--tasks: markov has no questions"},
      {"eval --tasks needle --haystack h7", "--haystack: no h7 (h0 to h3)"},
      {"eval --tasks needle --haystack h3", "--haystack h3: needle has none"},
      {"eval --tasks needle --length 9", "--length is 9; it takes 64 to 8192"},
      {"eval --tasks needle --policies h3o", "--policies: no policy or gate file h3o (full, "},
      {"eval --tasks needle --policies tova,tova", "--policies: tova is named twice"},
      {"eval --tasks storefront --policies tova", "policies are compared on families"},
      {"eval --tasks needle --policies tova --budgets 0", "--budgets: takes per cents from 0.1"},
      {"eval --tasks needle --policies tova --budgets nan", "--budgets: takes per cents from 0.1"},
      {"eval --tasks needle --policies tova --budgets 50,50", "--budgets: 50.0 is named twice"},
      {"eval --tasks needle --policies tova --gate g", "do not go with --policies"},
      {"eval --tasks needle --out x", "--out: keeps what --policies came to"},
      {"eval --tasks needle --policies tova --seeds 0", "--seeds is 0; it takes 1 to 1000"},
      {"generate -p x --kv-budget 1", "--kv-budget is 1; this model takes at least "},
      {"generate --promt x", "--promt is not a flag of coppice generate; did you mean --prompt?"},
      {"generate -p x y z", "\"y\" belongs to no flag"},
      {"--verison", "--verison is not a flag of coppice; did you mean --version?"},
      {"-x", "-x is not a flag of coppice "},
      {"bench --foo", "--foo is not a flag of coppice bench "},
      {"bench attention --head-dim 257", "--head-dim is 257; it takes 1 to 256"},
      {"bench attention --head-dim 0", "--head-dim is 0; it takes 1 to 256"},
      {"bench attention --shared 100000000", "--shared is 100000000; it takes 0 to 16777216"},
      {"bench attention --batch 1000 --private 100000", "these are 1001 and 100004096"},
      {"bench attention --shared 0 --private 0", "--shared accepts 1 or more"},
      {"bench attention --isa x", "--isa"},
      {"bench attention --tree ''", "--tree accepts total nodes per level"},
      {"bench attention --heads 3 --kv-heads 2", "--heads accepts a multiple of --kv-heads"},
      {"frobnicate", "\"frobnicate\" is not a command; coppice takes generate"},
      {"", "names no command; coppice takes generate"},
      {"bench", "names no command; bench takes attention"},
  };
  for (const auto& [arguments, named] : cases) {
    const Outcome run = coppice(arguments);
    EXPECT_EQ(run.code, 2) << arguments;
    EXPECT_EQ(run.out, "") << arguments;
    EXPECT_NE(run.err.find(named), std::string::npos) << arguments << ": " << run.err;
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
  }
}

TEST_F(Cli, WhatCannotWorkExitsWith1AndOneLine) {
  const std::pair<std::string, const char*> cases[] = {
      {"generate -m /nowhere -p x", "/nowhere"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama --batch /nowhere.jsonl", "/nowhere.jsonl"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama --batch " + file("e.jsonl", "\n"),
       "holds no request"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama -p x --memory 1M",
       "--memory 1048576 cannot"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama -p x --chat", "--chat"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama -p x --device cuda", "cpu"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama -p x --gate g", "--gate: g"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama -p x --kv-budget 64K", "--kv-budget"},
  };
  for (const auto& [arguments, named] : cases) {
    const Outcome run = coppice(arguments);
    EXPECT_EQ(run.code, 1) << arguments << run.err;
    EXPECT_NE(run.err.find(named), std::string::npos) << arguments << ": " << run.err;
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
  }
}

TEST_F(Cli, HelpAndVersionExitWith0) {
  EXPECT_EQ(coppice("--version").out.find("coppice "), 0u);
  const Outcome help = coppice("generate --help");
  EXPECT_EQ(help.code, 0);
  for (const char* flag :
       {"--kv-budget", "--attention", "--batch", "--min-p", "default 256", "0 or -1: all",
        "0: what the model allows", "mapped files do not count", "times are milliseconds"}) {
    EXPECT_NE(help.out.find(flag), std::string::npos) << flag;
  }
  size_t later = 0;   // --chat, --system, --device
  std::string words;  // however the lines were broken
  std::istringstream text(help.out);
  for (std::string word; text >> word;) words += word + ' ';
  for (size_t at = 0; (at = words.find("not in this build yet", at)) != std::string::npos; ++at) {
    ++later;
  }
  EXPECT_EQ(later, 3u) << help.out;
  const Outcome bench = coppice("bench attention --help");
  for (const char* named : {"(default 4096)", "(default 32)", "(default bf16)", "(default auto)",
                            "worker threads; 0: physical cores (default 0)"}) {
    EXPECT_NE(bench.out.find(named), std::string::npos) << named;
  }
}

TEST_F(Cli, VerboseSaysWhatWasChosen) {
  const Outcome run = generate("-p hi -n 1 -v --log-format json");
  EXPECT_EQ(run.code, 0);
  bool weights = false;
  std::istringstream text(run.err);
  for (std::string line; std::getline(text, line);) {
    weights |= json::parse(line)["message"].get<std::string>().find("weights") != std::string::npos;
  }
  EXPECT_TRUE(weights);
}

}  // namespace
}  // namespace coppice
