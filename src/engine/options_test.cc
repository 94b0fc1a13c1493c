#include "coppice/options.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "coppice/request.h"

namespace coppice {
namespace {

TEST(Size, ReadsPowersOf1024) {
  EXPECT_EQ(*parse_size("512", "--memory"), 512);
  EXPECT_EQ(*parse_size("64K", "--memory"), 64 * 1024);
  EXPECT_EQ(*parse_size("3m", "--memory"), 3 * 1024 * 1024);
  EXPECT_EQ(*parse_size("1.5G", "--memory"), 3 * (int64_t{1} << 29));
}

TEST(Size, RefusesWithTheFlagAndWhatItTakes) {
  for (const char* text : {"", "K", "-1", "0", "1T", "1KB", "0x10", "nan", "inf", "1e9", "1 G",
                           "99999999999999999999", "9999999999G"}) {
    const auto size = parse_size(text, "--kv-budget");
    ASSERT_FALSE(size) << text;
    EXPECT_EQ(size.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(size.error().message.find("--kv-budget"), std::string::npos);
    EXPECT_NE(size.error().message.find("powers of 1024"), std::string::npos);
  }
}

TEST(Size, Formats) {
  EXPECT_EQ(format_size(512), "512 B");
  EXPECT_EQ(format_size(1536), "1.5 KiB");
  EXPECT_EQ(format_size(int64_t{5} << 30), "5.0 GiB");
}

TEST(Memory, SomeIsAvailable) { EXPECT_GT(available_memory(), int64_t{1} << 20); }

EngineOptions good() {
  EngineOptions options;
  options.model = "somewhere";
  return options;
}

void expect_refused(const EngineOptions& options, ErrorCode code, const std::string& named) {
  const Status status = validate(options);
  ASSERT_FALSE(status) << named;
  EXPECT_EQ(status.error().code, code);
  EXPECT_NE(status.error().message.find(named), std::string::npos) << status.error().message;
}

TEST(Options, DefaultsPass) { EXPECT_TRUE(validate(good())); }

TEST(Options, EachWrongOneIsNamed) {
  EngineOptions o = good();
  o.model.clear();
  expect_refused(o, ErrorCode::kInvalidArgument, "--model");
  o = good();
  o.ctx = 1;
  expect_refused(o, ErrorCode::kInvalidArgument, "--ctx");
  o = good();
  o.threads = -1;
  expect_refused(o, ErrorCode::kInvalidArgument, "--threads");
  o = good();
  o.max_rows = o.max_live;  // leaves no row for a prefill
  expect_refused(o, ErrorCode::kInvalidArgument, "--max-rows");
  o = good();
  o.slice = 0;
  expect_refused(o, ErrorCode::kInvalidArgument, "--slice");
  o = good();
  o.kv_budget = 0;
  expect_refused(o, ErrorCode::kInvalidArgument, "--kv-budget");
  o = good();
  o.memory = -5;
  expect_refused(o, ErrorCode::kInvalidArgument, "--memory");
  o = good();
  o.isa = "sse2";
  expect_refused(o, ErrorCode::kInvalidArgument, "avx512bf16");
}

TEST(Options, WordsParse) {
  EXPECT_EQ(*parse_weight_type("f32"), WeightType::kF32);
  EXPECT_EQ(*parse_weight_storage("auto"), WeightStorage::kAuto);
  EXPECT_EQ(*parse_weight_storage("int8"), WeightStorage::kInt8);
  EXPECT_EQ(*parse_kv_type("bf16"), KvType::kBF16);
  EXPECT_EQ(*parse_kv_type("int8"), KvType::kInt8);
  EXPECT_EQ(*parse_partition("per-sequence"), AttentionPartition::kPerSequence);
  EXPECT_FALSE(parse_weight_type("f16"));
  EXPECT_FALSE(parse_weight_storage("q8_0"));
  EXPECT_FALSE(parse_kv_type(""));
  EXPECT_FALSE(parse_partition("two_phase"));
  EXPECT_EQ(*parse_kv_thinning("allow", "kv_thinning"), KvThinning::kAllow);
  EXPECT_EQ(*parse_kv_thinning("refuse", "kv_thinning"), KvThinning::kRefuse);
  EXPECT_FALSE(parse_kv_thinning("", "kv_thinning"));
}

TEST(SamplingFields, EachWrongOneIsNamed) {
  const auto refused = [](auto change, const std::string& field) {
    Sampling s;
    change(s);
    const Status status = validate(s);
    ASSERT_FALSE(status) << field;
    EXPECT_EQ(status.error().message.find(field), 0u) << status.error().message;
  };
  EXPECT_TRUE(validate(Sampling{}));
  refused([](Sampling& s) { s.temperature = -0.1; }, "temperature");
  refused([](Sampling& s) { s.temperature = std::nan(""); }, "temperature");
  refused([](Sampling& s) { s.top_k = -2; }, "top_k");
  refused([](Sampling& s) { s.top_p = 0.0; }, "top_p");
  refused([](Sampling& s) { s.top_p = 1.01; }, "top_p");
  refused([](Sampling& s) { s.min_p = 2.0; }, "min_p");
  refused([](Sampling& s) { s.max_tokens = 0; }, "max_tokens");
  refused([](Sampling& s) { s.min_tokens = 257; }, "min_tokens");
  refused([](Sampling& s) { s.n = 0; }, "n");
  refused([](Sampling& s) { s.top_logprobs = 21; }, "top_logprobs");
  refused([](Sampling& s) { s.top_logprobs = 3; }, "top_logprobs");
  refused([](Sampling& s) { s.stop = {"ok", ""}; }, "stop");
  refused([](Sampling& s) { s.stop.assign(65, "x"); }, "stop");
}

}  // namespace
}  // namespace coppice
