#include "result_json.h"

#include <gtest/gtest.h>

#include "output_order.h"
#include "progress.h"

namespace coppice::tools {
namespace {

TEST(ResultJson, KeysStandInTheDocumentedOrder) {
  Result r;
  r.text = "hi \xff";
  r.tokens = {4, 5};
  r.finish_reason = FinishReason::kLength;
  r.usage = {10, 2, 6, 5};
  r.timings = {1.0, 2.0, 4.0, 250.0};
  r.kv = {120, 20, 250};
  const std::string line = one_line(result_json("a", 3, r));
  EXPECT_EQ(line,
            "{\"id\":\"a\",\"index\":3,\"text\":\"hi \xef\xbf\xbd\",\"tokens\":[4,5],"
            "\"finish_reason\":\"length\",\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":2,"
            "\"cached_tokens\":6,\"evaluated_tokens\":5},\"timings\":{\"ttft\":1.0,\"prefill\":2.0,"
            "\"decode\":4.0,\"tokens_per_second\":250.0},\"kv\":{\"bytes_held\":120,"
            "\"bytes_reclaimable\":20,\"bytes_unshared\":250,\"sharing_factor\":2.5}}");
}

TEST(ResultJson, ErrorsAndLogprobsAppearWhenThereAreAny) {
  Result r;
  r.finish_reason = FinishReason::kError;
  r.error = Error{ErrorCode::kTooLarge, "no"};
  r.logprobs.push_back({7, -0.5, {{7, -0.5}, {1, -2.0}}});
  const auto json = result_json(nullptr, 0, r);
  EXPECT_TRUE(json["id"].is_null());
  EXPECT_EQ(json["error"]["code"], "too_large");
  EXPECT_EQ(json["error"]["message"], "no");
  EXPECT_EQ(json["logprobs"][0]["top"][1]["token"], 1);
}

TEST(ResultJson, TheSummaryAddsUp) {
  Totals totals;
  Result r;
  r.usage = {10, 3, 6, 5};
  totals.add(r);
  r.finish_reason = FinishReason::kError;
  totals.add(r);
  totals.requests = 2;
  totals.wall_ms = 500.0;
  const auto summary = summary_json(totals)["summary"];
  EXPECT_EQ(summary["requests"], 2);
  EXPECT_EQ(summary["errors"], 1);
  EXPECT_EQ(summary["usage"]["cached_tokens"], 12);
  EXPECT_EQ(summary["timings"]["tokens_per_second"], 12.0);
}

TEST(OutputOrder, HandsOnInOrderAsSoonAsItCan) {
  std::vector<int64_t> seen;
  OutputOrder order(3, [&](int64_t slot, const Result& r) {
    EXPECT_EQ(r.id, static_cast<RequestId>(slot));
    seen.push_back(slot);
  });
  const auto numbered = [](RequestId id) {
    Result r;
    r.id = id;
    return r;
  };
  order.put(2, numbered(2));
  EXPECT_TRUE(seen.empty());
  order.put(0, numbered(0));
  EXPECT_EQ(seen, (std::vector<int64_t>{0}));
  order.put(1, numbered(1));
  EXPECT_EQ(seen, (std::vector<int64_t>{0, 1, 2}));
}

TEST(ProgressBar, FillsAndClamps) {
  EXPECT_EQ(progress_bar(0, 10, 4), "[----]");
  EXPECT_EQ(progress_bar(5, 10, 4), "[##--]");
  EXPECT_EQ(progress_bar(11, 10, 4), "[####]");
  EXPECT_EQ(progress_bar(1, 0, 2), "[--]");
}

}  // namespace
}  // namespace coppice::tools
