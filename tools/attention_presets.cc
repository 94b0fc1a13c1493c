#include "attention_presets.h"

namespace coppice::tools {
namespace {

constexpr PaperLatency kTable3[] = {
    {1024, 0, 356.17, 355.82, 332.50},     {1024, 512, 355.88, 257.74, 198.87},
    {1024, 768, 356.02, 215.18, 131.21},   {1024, 1024, 355.44, 154.46, 56.00},
    {2048, 0, 702.98, 703.50, 655.44},     {2048, 1024, 703.35, 505.32, 384.37},
    {2048, 1536, 702.90, 421.25, 247.14},  {2048, 2048, 703.72, 338.41, 110.48},
    {4096, 0, 1400.61, 1400.17, 1301.78},  {4096, 2048, 1400.99, 998.78, 747.56},
    {4096, 3072, 1400.30, 828.98, 477.66}, {4096, 4096, 1399.51, 663.84, 206.22},
};

// Total nodes per level / tokens per node.
constexpr const char* kPatTrees[] = {
    "1,10/4096,416",
    "1,256/256,32",
    "1,1024/2048,32",
    "1,2,64/1024,256,256",
    "1,4,256/32,256,32",
    "1,8,512/32,512,256",
    "1,8,512/32,2048,256",
    "1,8,512/512,512,256",
    "1,4,8,256/32,256,256,32",
    "1,4,16,512/1024,256,128,32",
    "1,4,16,64,256,1024/256,32,256,64,32,256",
    "1,16,32,64,128,1024/256,128,64,32,32,32",
    "1,16,32,64,256,1024/256,128,64,32,32,32",
    "1,8,16,32,64,128,1024/256,128,64,32,32,32,32",
    "1,8,16,32,64,256,1024/256,128,64,32,32,32,32",
    "2,8,16,256/256,256,32,32",
    "4,16,256,512/512,32,128,32",
    "8,16,32,256/512,512,256,32",
    "256/1024",
    "256/4096",
};
constexpr const char* kFastTreeTrees[] = {
    "1,2,64/8,256,32",
    "1,4,256/8,256,32",
    "1,4,8,256/8,256,256,32",
    "1,256/256,32",
    "1,1024/2048,32",
    "1,16,64/1024,256,32",
    "1,4,16,512/1024,256,128,32",
    "1,4,16,64,256,1024/256,8,256,64,32,256",
    "1,10/4000,400",
    "1,2,4,8,16,32,64,128,1024/16,16,16,16,16,16,16,16,16",
    "1,2,4,8,16,32,64,128,1024/256,128,64,16,16,16,16,16,16",
    "1,8,16,32,64,128,1024/256,128,64,16,16,16,16",
    "1,8,16,32,64,256,1024/256,128,64,16,16,16,16",
    "1,16,32,64,128,1024/256,128,64,16,16,16",
    "1,16,32,64,256,1024/256,128,64,16,16,16",
};

std::vector<PresetRow> reference() {
  std::vector<PresetRow> rows;
  for (const int32_t own : {512, 0}) {
    for (const int32_t kv_heads : {8, 32}) {
      rows.push_back({"32/" + std::to_string(kv_heads) + " 4096+" + std::to_string(own),
                      "roofline case, 32 sequences over 4096 tokens",
                      {.kv_heads = kv_heads, .own = own}});
    }
  }
  return rows;
}

std::vector<PresetRow> table3() {
  std::vector<PresetRow> rows;
  for (const PaperLatency& row : kTable3) {
    rows.push_back({"n_p " + std::to_string(row.prompt) + ", n_s " + std::to_string(row.shared),
                    "ChunkAttention (arXiv 2402.15220), Table 3",
                    {.shared = row.shared, .own = row.prompt - row.shared}});
  }
  return rows;
}

// Of the heads that the sources ran these with, 32/8 is the one that both have.
template <size_t N>
void add_trees(const char* const (&trees)[N], const char* origin, std::vector<PresetRow>& rows) {
  for (const char* tree : trees) rows.push_back({tree, origin, {.kv_heads = 8, .tree = tree}});
}

std::vector<PresetRow> ragged() {
  std::vector<PresetRow> rows;
  for (const int32_t prefixes : {1, 2, 4, 8}) {
    rows.push_back({"zipf " + std::to_string(prefixes),
                    "64 sequences over so many prefixes, 1/i of the first one's to the i-th; "
                    "prefixes of 256 to 4096 tokens, 16 to 1024 of their own, drawn",
                    {.kv_heads = 8, .batch = 64, .zipf_prefixes = prefixes}});
  }
  return rows;
}

}  // namespace

std::vector<PresetRow> attention_preset(std::string_view name) {
  if (name == "reference") return reference();
  if (name == "paper-table3") return table3();
  if (name == "ragged") return ragged();
  std::vector<PresetRow> rows;
  if (name == "trees") {
    add_trees(kPatTrees, "PAT (ASPLOS 2026), benchmark/run_kernel_bench.sh", rows);
    add_trees(kFastTreeTrees, "FastTree (MLSys 2025), kernel_bench/run_benchmark.sh", rows);
  }
  return rows;
}

std::vector<PaperLatency> paper_table3() { return {std::begin(kTable3), std::end(kTable3)}; }

}  // namespace coppice::tools
