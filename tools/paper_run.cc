#include "paper_run.h"

#include <algorithm>
#include <map>
#include <optional>

#include "attention_measure.h"
#include "attention_presets.h"
#include "decode_curve.h"
#include "gemm_case.h"
#include "interrupt.h"

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;

// Llama 2 7B, one layer.
constexpr int32_t kHidden = 4096, kInner = 11008, kHeads = 32, kHeadDim = 128, kContext = 2048;
constexpr int32_t kBatch = 32;

// Table 1, microseconds on an A100.
struct PaperLayer {
  int32_t batch;
  double qkv, attention, mlp;
};
constexpr PaperLayer kTable1[] = {
    {1, 88.44, 17.82, 160.77}, {32, 90.02, 687.74, 209.82}, {64, 98.04, 1358.40, 217.79}};

// Figure 3, thousands of tokens per second on an A100.
struct PaperRate {
  int32_t shared, decoded;
  double paged, chunk;
};
constexpr PaperRate kFigure3[] = {
    {1024, 256, 76.35, 241.93}, {1024, 512, 69.15, 186.44},  {1024, 1024, 58.12, 127.85},
    {2048, 512, 39.85, 145.41}, {2048, 1024, 36.18, 107.37}, {2048, 2048, 30.17, 70.33},
    {4096, 512, 21.04, 101.69}, {4096, 1024, 19.85, 81.69},  {4096, 2048, 17.98, 58.33},
    {4096, 4096, 15.12, 37.05},
};

Status begin_part(const PaperOptions& options, const std::string& part) {
  TRY_STATUS(Interrupt::check());
  if (options.progress) options.progress(part);
  return {};
}

int32_t scaled(int32_t n, const PaperOptions& options) { return std::max(1, n / options.scale); }

ops::BackendOptions backend_options(const PaperOptions& options) {
  return {.threads = options.threads, .isa = options.isa};
}

// Median microseconds of a product with bf16 weights from memory, per batch.
Expected<std::map<int32_t, double>> product_us(int32_t n, int32_t k, const PaperOptions& options) {
  TRY(const auto gemm, GemmCase::create(DType::kBF16, 64, backend_options(options)));
  TRY_STATUS(gemm->load({n, k}, last_level_cache()));
  std::map<int32_t, double> found;
  for (const PaperLayer& row : kTable1) {
    Samples us;
    gemm->multiply(row.batch, true);
    spend({options.effort.rounds, options.effort.seconds / 8}, [&] {
      const Stopwatch call;
      gemm->multiply(row.batch, true);
      us.add(call.us());
    });
    found[row.batch] = us.median();
  }
  return found;
}

// The paper's own counts: 2-byte elements, every operand of every product once.
struct Counts {
  double flop = 0, bytes = 0;
};

Counts qkv_counts(double b, double h) { return {6 * b * h * h, 6 * h * h + 8 * b * h}; }
Counts mlp_counts(double b, double h, double i) {
  return {6 * b * h * i, 6 * h * i + 6 * b * (h + i)};
}
Counts attention_counts(double b, double h, double heads, double n) {
  return {4 * b * h * (n + 1), 2 * b * (2 * n * h + 4 * h + 2 * heads * n)};
}

ordered_json layer_row(int32_t batch, const char* part, const Counts& counts, double us,
                       double paper_us) {
  return {{"batch", batch},
          {"part", part},
          {"mflop", counts.flop * 1e-6},
          {"mb", counts.bytes * 1e-6},
          {"us", us},
          {"gflops", counts.flop / us * 1e-3},
          {"gbps", counts.bytes / us * 1e-3},
          {"paper_us", paper_us}};
}

}  // namespace

Expected<ordered_json> paper_table1(Ceilings& ceilings, const PaperOptions& options) {
  const int32_t h = scaled(kHidden, options), inner = scaled(kInner, options);
  const int32_t heads = scaled(kHeads, options), context = scaled(kContext, options);
  TRY_STATUS(begin_part(options, "Table 1, QKV projections"));
  TRY(const auto qkv, product_us(3 * h, h, options));
  TRY_STATUS(begin_part(options, "Table 1, MLP"));
  TRY(const auto up, product_us(inner, h, options));
  TRY(const auto down, product_us(h, inner, options));
  ordered_json rows = ordered_json::array();
  for (const PaperLayer& row : kTable1) {
    TRY_STATUS(begin_part(options, "Table 1, attention of " + std::to_string(row.batch)));
    const int32_t b = row.batch;
    AttentionSpec spec{.heads = heads, .kv_heads = heads, .head_dim = kHeadDim};
    spec.batch = b;
    spec.shared = 0;
    spec.own = context;
    TRY(const AttentionShape shape, shape_of(spec));
    TRY(const AttentionMeasured attention,
        measure_attention(shape, ceilings, options.effort, backend_options(options)));
    rows.push_back(layer_row(b, "qkv", qkv_counts(b, h), qkv.at(b), row.qkv));
    rows.push_back(layer_row(b, "attention", attention_counts(b, h, heads, context),
                             attention.json["two_phase_us"], row.attention));
    rows.push_back(
        layer_row(b, "mlp", mlp_counts(b, h, inner), 2 * up.at(b) + down.at(b), row.mlp));
  }
  return rows;
}

Expected<ordered_json> paper_table3_measured(Ceilings& ceilings, const PaperOptions& options) {
  const std::vector<PresetRow> preset = attention_preset("paper-table3");
  const std::vector<PaperLatency> printed = paper_table3();
  std::vector<AttentionSpec> specs;
  std::vector<AttentionMeasured> measured;
  for (const PresetRow& row : preset) {
    TRY_STATUS(begin_part(options, "Table 3, " + row.name));
    AttentionSpec spec = row.spec;
    spec.heads = spec.kv_heads = scaled(spec.heads, options);
    spec.shared /= options.scale;
    spec.own /= options.scale;
    TRY(const AttentionShape shape, shape_of(spec));
    TRY(AttentionMeasured one,
        measure_attention(shape, ceilings, options.effort, backend_options(options)));
    specs.push_back(spec);
    measured.push_back(std::move(one));
  }
  ordered_json rows = ordered_json::array();
  for (size_t i = 0; i < measured.size(); ++i) {
    hold_against(ceilings, measured[i]);
    ordered_json row{{"n_p", specs[i].shared + specs[i].own}, {"n_s", specs[i].shared}};
    row.update(measured[i].json);
    row["paper"] = {{"paged_us", printed[i].paged},
                    {"paged_shared_us", printed[i].paged_shared},
                    {"chunk_us", printed[i].chunk}};
    rows.push_back(std::move(row));
  }
  return rows;
}

int32_t steps_stood_for(int32_t step, int32_t begin, int32_t end, int32_t every) {
  const int32_t first = step - (step - begin) % every;
  const int32_t count = std::min(every, end - first);
  return step == first + count / 2 ? count : 0;
}

Expected<ordered_json> paper_figure3(const PaperOptions& options) {
  ordered_json rows = ordered_json::array();
  std::unique_ptr<DecodeCurve> curve;
  int32_t shared = -1, step = 0;
  double two_phase = 0, per_sequence = 0;  // seconds since the prompt
  std::optional<double> copies;
  for (const PaperRate& point : kFigure3) {
    TRY_STATUS(begin_part(options, "Figure 3, n_s " + std::to_string(point.shared) + ", n_c " +
                                       std::to_string(point.decoded)));
    if (point.shared != shared) {
      shared = point.shared;
      const PaperRate& last = *std::find_if(std::rbegin(kFigure3), std::rend(kFigure3),
                                            [&](const auto& p) { return p.shared == shared; });
      curve.reset();  // before the next one takes its memory
      TRY(curve, DecodeCurve::create({.heads = scaled(kHeads, options),
                                      .head_dim = kHeadDim,
                                      .batch = kBatch,
                                      .shared = scaled(shared, options),
                                      .longest = scaled(last.decoded, options)},
                                     backend_options(options)));
      step = 0;
      two_phase = per_sequence = 0;
      copies.reset();
    }
    const int32_t begin = step;
    for (const int32_t end = scaled(point.decoded, options); step < end; ++step) {
      const int32_t steps = steps_stood_for(step, begin, end, options.every);
      TRY_STATUS(Interrupt::check());
      const DecodeCurve::StepTimes us = curve->step(steps > 0);
      if (steps == 0) continue;
      const double seconds = 1e-6 * steps;
      two_phase += us.two_phase * seconds;
      per_sequence += us.per_sequence * seconds;
      if (us.copies) copies = copies.value_or(0) + *us.copies * seconds;
    }
    const double tokens = static_cast<double>(kBatch) * step;
    ordered_json row{{"n_s", scaled(shared, options)}, {"n_c", step}};
    row["two_phase"] = tokens / two_phase;
    row["per_sequence"] = tokens / per_sequence;
    row["copies"] = copies ? ordered_json(tokens / *copies) : ordered_json();
    row["paper_paged"] = point.paged * 1e3;
    row["paper_chunk"] = point.chunk * 1e3;
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace coppice::tools
