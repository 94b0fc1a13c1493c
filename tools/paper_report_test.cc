#include "paper_report.h"

#include <gtest/gtest.h>

#include "paper_run.h"
#include "svg_chart.h"

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;

ordered_json report() {
  ordered_json out{{"date", "2001-02-03"},
                   {"machine", "a machine"},
                   {"command", "coppice bench paper"},
                   {"scale", 1},
                   {"ceilings",
                    {{"f32_gflops", 200.0},
                     {"bf16_gflops", 400.0},
                     {"bandwidth_gbps", 40.0},
                     {"exp_grate", 8.0},
                     {"noisy", false}}}};
  out["table1"] = {{{"batch", 32},
                    {"part", "qkv"},
                    {"mflop", 3221.23},
                    {"mb", 101.71},
                    {"us", 10000.0},
                    {"gflops", 322.1},
                    {"gbps", 10.2},
                    {"paper_us", 90.02}}};
  ordered_json row{{"n_p", 1024},           {"n_s", 512},
                   {"two_phase_us", 100.0}, {"per_sequence_us", 300.0},
                   {"floor_fraction", 0.8}, {"per_sequence_seq_outer_us", 250.0}};
  row["per_sequence_unshared_us"] = nullptr;  // did not fit
  row["paper"] = {{"paged_us", 355.88}, {"paged_shared_us", 257.74}, {"chunk_us", 198.87}};
  out["table3"] = {row};
  row["per_sequence_unshared_us"] = 450.0;
  row["n_s"] = 1024;
  out["table3"].push_back(row);
  out["figure3"] = {{{"n_s", 1024},
                     {"n_c", 256},
                     {"two_phase", 9000.0},
                     {"per_sequence", 4500.0},
                     {"copies", 3000.0},
                     {"paper_paged", 76350.0},
                     {"paper_chunk", 241930.0}}};
  return out;
}

TEST(PaperReport, ThePageHoldsWhatWasMeasuredBesideThePaper) {
  const std::string page = paper_markdown(report());
  for (const char* text :
       {"- date: 2001-02-03\n", "- machine: a machine\n", "- command: `coppice bench paper`\n",
        "| 32 | qkv | 3221.23 | 101.71 | 31.67 | 10000 | 322 | 10.2 | 90.02 |",
        "| 1024 | 512 | - | 250 | 100 | 0.80 | - | 2.50x | 1.79x | 1.30x |",
        "| 1024 | 1024 | 450 | 250 | 100 | 0.80 | 4.50x | 2.50x | 1.79x | 1.30x |",
        "| 1024 | 256 | 3000 | 4500 | 9000 | 3.00x | 2.00x | 76350 | 241930 | 3.17x |"}) {
    EXPECT_NE(page.find(text), std::string::npos) << text << "\n" << page;
  }
  EXPECT_EQ(page.find("noisy"), std::string::npos);
  EXPECT_EQ(page.find("divided by"), std::string::npos);
}

// Every step of a stretch is stood for once, by one that is not shorter than theirs are on average.
TEST(PaperRun, TimedStepsStandForAll) {
  for (const auto& [begin, end] : {std::pair(0, 256), {256, 512}, {4, 8}, {8, 16}, {100, 256}}) {
    for (const int32_t every : {1, 2, 4, 7, 16, 100, 4096}) {
      int64_t stood_for = 0, sum = 0, weighted = 0;
      for (int32_t step = begin; step < end; ++step) {
        const int32_t steps = steps_stood_for(step, begin, end, every);
        stood_for += steps;
        sum += step;
        weighted += int64_t{steps} * step;
      }
      EXPECT_EQ(stood_for, end - begin) << begin << " to " << end << ", every " << every;
      EXPECT_GE(weighted, sum);
      EXPECT_LE(2 * weighted, 2 * sum + end - begin);
    }
  }
}

TEST(PaperReport, WhatIsNoFullRunSaysSo) {
  ordered_json tried = report();
  tried["scale"] = 32;
  tried["ceilings"]["noisy"] = true;
  const std::string page = paper_markdown(tried);
  EXPECT_NE(page.find("tokens divided by 32"), std::string::npos);
  EXPECT_NE(page.find("noisy"), std::string::npos);
}

TEST(PaperReport, ChartsLeaveOutWhatWasNotMeasured) {
  const std::string table3 = table3_svg(report());
  EXPECT_EQ(table3.find("<svg "), 0u);
  const auto count = [](const std::string& text, const std::string& part) {
    int found = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
      ++found;
    }
    return found;
  };
  EXPECT_EQ(count(table3, "<circle "), 1 + 2);  // one here, two of the paper
  EXPECT_EQ(count(figure3_svg(report()), "<circle "), 2);
}

TEST(SvgChart, PointsLieInTheirPlaceAndTextIsEscaped) {
  const std::string svg = svg_of({"a < b & c", "x", "y", {{"s", {{0, 0}, {10, 20}}, false, 0}}});
  EXPECT_NE(svg.find("a &lt; b &amp; c"), std::string::npos);
  EXPECT_NE(svg.find("points=\"80.0,360.0 600.0,46.0\""), std::string::npos) << svg;
  EXPECT_NE(svg_of({"", "", "", {}}).find("</svg>"), std::string::npos);
}

}  // namespace
}  // namespace coppice::tools
