#include "paper_report.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "attention_measure.h"
#include "svg_chart.h"

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;

std::string fixed(double x, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, x);
  return text;
}

std::string fixed(const ordered_json& value, int digits) {
  return value.is_null() ? "-" : fixed(value.get<double>(), digits);
}

std::string cells(std::initializer_list<std::string> texts) {
  std::string row = "|";
  for (const std::string& text : texts) row += " " + text + " |";
  return row + "\n";
}

// a / b as "4.82x".
std::string times(const ordered_json& a, const ordered_json& b) {
  if (a.is_null() || b.is_null()) return "-";
  return fixed(a.get<double>() / b.get<double>(), 2) + "x";
}

std::string head(const ordered_json& report) {
  const ordered_json& c = report["ceilings"];
  std::string text =
      "# The paper's shapes on this machine\n\n"
      "ChunkAttention (arXiv 2402.15220), Table 1, Table 3 and Figure 3: the same shapes, measured "
      "with Coppice's CPU kernels beside what the paper prints for an A100. Not the same machine, "
      "so "
      "compare ratios.\n\n";
  text += "- date: " + report["date"].get<std::string>() + "\n";
  text += "- machine: " + report["machine"].get<std::string>() + "\n";
  text += "- command: `" + report["command"].get<std::string>() + "`\n";
  text += "- ceilings in the same process: " + fixed(c["f32_gflops"], 0) + " GFLOP/s f32, " +
          fixed(c["bf16_gflops"], 0) + " GFLOP/s bf16, " + fixed(c["bandwidth_gbps"], 1) +
          " GB/s read, " + fixed(c["exp_grate"], 1) + " exponentials per ns" +
          (c["noisy"].get<bool>() ? " (below the reference machine's: `noisy`)" : "") + "\n";
  if (report["scale"].get<int>() != 1) {
    text += "- **heads, widths and tokens divided by " +
            std::to_string(report["scale"].get<int>()) +
            "**: a trial of the command, not the paper's shapes\n";
  }
  return text + "\n";
}

std::string table1(const ordered_json& report) {
  std::string text =
      "## Table 1: one decoder layer, Llama 2 7B, context 2048, nothing shared, bf16\n"
      "MFLOP and MB by the paper's formulas; weights from memory; the MLP is its three "
      "products.\n\n";
  text += cells({"b", "part", "MFLOP", "MB", "flops per byte", "us here", "GFLOP/s", "GB/s",
                 "us, A100 (paper)"});
  text += "|---|---|---|---|---|---|---|---|---|\n";
  for (const ordered_json& row : report["table1"]) {
    text +=
        cells({std::to_string(row["batch"].get<int>()), row["part"].get<std::string>(),
               fixed(row["mflop"], 2), fixed(row["mb"], 2),
               fixed(row["mflop"].get<double>() / row["mb"].get<double>(), 2), fixed(row["us"], 0),
               fixed(row["gflops"], 0), fixed(row["gbps"], 1), fixed(row["paper_us"], 2)});
  }
  return text + "\n";
}

std::string table3(const ordered_json& report) {
  std::string text =
      "## Table 3: attention of 32 sequences, 32/32 heads, D 128, n_p tokens of which n_s shared\n"
      "us per layer and step, medians. *Copies*: every sequence has its own pages (the paper's "
      "PagedAttn); *shared pages*: the faster of both loop orders over shared pages, sequence by "
      "sequence (PagedAttn\\*). Gains are another way's time over two-phase's.\n\n";
  text += cells({"n_p", "n_s", "copies", "shared pages", "two-phase", "floor fraction",
                 "gain over copies", "gain over shared pages", "A100: over PagedAttn",
                 "A100: over PagedAttn\\*"});
  text += "|---|---|---|---|---|---|---|---|---|---|\n";
  for (const ordered_json& row : report["table3"]) {
    const ordered_json& paper = row["paper"];
    const double ratio = shared_page_ratio(row);
    text += cells({std::to_string(row["n_p"].get<int>()), std::to_string(row["n_s"].get<int>()),
                   fixed(row["per_sequence_unshared_us"], 0),
                   fixed(ratio * row["two_phase_us"].get<double>(), 0),
                   fixed(row["two_phase_us"], 0), fixed(row["floor_fraction"], 2),
                   times(row["per_sequence_unshared_us"], row["two_phase_us"]),
                   fixed(ratio, 2) + "x", times(paper["paged_us"], paper["chunk_us"]),
                   times(paper["paged_shared_us"], paper["chunk_us"])});
  }
  return text + "\n![Gain over private copies](table3.svg)\n\n";
}

std::string figure3(const ordered_json& report) {
  std::string text =
      "## Figure 3: tokens per second of 32 sequences that decode n_c tokens after n_s shared "
      "ones\n"
      "One layer's attention with appends, reservation and planning in every step.\n\n";
  text += cells({"n_s", "n_c", "copies", "shared pages", "two-phase", "gain over copies",
                 "gain over shared pages", "A100: PagedAttn", "A100: ChunkAttn", "A100: gain"});
  text += "|---|---|---|---|---|---|---|---|---|---|\n";
  for (const ordered_json& row : report["figure3"]) {
    text += cells({std::to_string(row["n_s"].get<int>()), std::to_string(row["n_c"].get<int>()),
                   fixed(row["copies"], 0), fixed(row["per_sequence"], 0),
                   fixed(row["two_phase"], 0), times(row["two_phase"], row["copies"]),
                   times(row["two_phase"], row["per_sequence"]), fixed(row["paper_paged"], 0),
                   fixed(row["paper_chunk"], 0), times(row["paper_chunk"], row["paper_paged"])});
  }
  return text + "\n![Tokens per second](figure3.svg)\n";
}

}  // namespace

std::string paper_markdown(const ordered_json& report) {
  return head(report) + table1(report) + table3(report) + figure3(report);
}

std::string table3_svg(const ordered_json& report) {
  Chart chart{"Table 3: private copies' time over two-phase's",
              "share of the prompt in common",
              "times",
              {}};
  std::map<int, ChartSeries> here, paper;  // by n_p
  for (const ordered_json& row : report["table3"]) {
    const int prompt = row["n_p"].get<int>();
    const double share = row["n_s"].get<double>() / prompt;
    paper[prompt].points.emplace_back(
        share, row["paper"]["paged_us"].get<double>() / row["paper"]["chunk_us"].get<double>());
    if (row["per_sequence_unshared_us"].is_null()) continue;
    here[prompt].points.emplace_back(
        share, row["per_sequence_unshared_us"].get<double>() / row["two_phase_us"].get<double>());
  }
  int colour = 0;
  for (auto& [prompt, series] : paper) {
    const std::string name = "n_p " + std::to_string(prompt);
    chart.series.push_back({name + ", here", here[prompt].points, false, colour});
    chart.series.push_back({name + ", A100 (paper)", series.points, true, colour++});
  }
  return svg_of(chart);
}

std::string figure3_svg(const ordered_json& report) {
  Chart chart{"Figure 3: 32 sequences after n_s shared tokens",
              "tokens decoded, n_c",
              "tokens per second",
              {}};
  std::map<int, std::vector<ordered_json>> rows;  // by n_s
  for (const ordered_json& row : report["figure3"]) rows[row["n_s"].get<int>()].push_back(row);
  int colour = 0;
  for (const auto& [shared, points] : rows) {
    ChartSeries two_phase{"n_s " + std::to_string(shared) + ", two-phase", {}, false, colour};
    ChartSeries copies{"n_s " + std::to_string(shared) + ", copies", {}, true, colour++};
    for (const ordered_json& row : points) {
      two_phase.points.emplace_back(row["n_c"], row["two_phase"]);
      if (!row["copies"].is_null()) copies.points.emplace_back(row["n_c"], row["copies"]);
    }
    chart.series.push_back(std::move(two_phase));
    chart.series.push_back(std::move(copies));
  }
  return svg_of(chart);
}

}  // namespace coppice::tools
