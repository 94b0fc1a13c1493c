#include "ceilings.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include "coppice/options.h"
#include "int8_ceiling.h"
#include "interrupt.h"
#include "ops/cpu/attention.h"
#include "ops/lazy_memory.h"
#include "read_ceiling.h"
#include "tensor/quant_block.h"

namespace coppice::tools {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kRounds = 9;
constexpr int kMostPasses = 5;
constexpr double kSettled = 0.02;
constexpr int64_t kMemoryBytes = int64_t{256} << 20;  // per thread
constexpr int64_t kL3Bytes = int64_t{4} << 20;        // per thread
// The reference machine, one thread (bandwidth: 2 MiB pages).
constexpr double kReferenceFma = 112, kReferenceDot = 223, kReferenceBandwidth = 20;

double ns_since(Clock::time_point start) {
  return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
}

// The best rate of a few rounds in which every thread does body(thread) units of work.
template <class Body>
double best_rate(ops::cpu::ThreadPool& pool, int rounds, const Body& body) {
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    std::vector<double> units(static_cast<size_t>(pool.threads()));
    const auto start = Clock::now();
    pool.parallel_for(pool.threads(), [&](int32_t item, int32_t) {
      units[static_cast<size_t>(item)] = body(item);
    });
    double sum = 0;
    for (const double u : units) sum += u;
    best = std::max(best, sum / ns_since(start));
  }
  return best;
}

Expected<double> read_rate(ops::cpu::ThreadPool& pool, int64_t bytes, int64_t times) {
  TRY(Buffer memory, ops::allocate_lazily(bytes * pool.threads()));
  pool.parallel_for(pool.threads(), [&](int32_t item, int32_t) {
    std::fill_n(memory.data() + item * bytes, bytes, std::byte{1});
  });
  std::vector<uint64_t> sinks(static_cast<size_t>(pool.threads()) * 8);
  double best = 0;
  for (int way = 0; way < kReadWays; ++way) {
    best = std::max(best, best_rate(pool, kRounds / kReadWays, [&](int32_t item) {
                      for (int64_t time = 0; time < times; ++time) {
                        sinks[static_cast<size_t>(item) * 8] ^=
                            read_all(way, memory.data() + item * bytes, bytes);
                      }
                      return static_cast<double>(bytes * times);
                    }));
  }
  return best;
}

}  // namespace

double Ceilings::peak_gflops(DType type) const {
  if (is_quantised(type)) return int8_gops;
  return type == DType::kF32 ? f32_gflops : bf16_gflops;
}

double Ceilings::risen_over(const Ceilings& before) const {
  double most = 0;
  for (const auto figure : {&Ceilings::f32_gflops, &Ceilings::bf16_gflops, &Ceilings::int8_gops,
                            &Ceilings::exp_grate, &Ceilings::bandwidth_gbps}) {
    most = std::max(most, this->*figure / (before.*figure) - 1);
  }
  return most;
}

Status raise_ceilings(Ceilings& ceilings) {
  const ops::cpu::AttentionKernel& kernel = ops::cpu::attention_kernel(ceilings.isa);
  ops::cpu::ThreadPool pool(ceilings.threads);
  std::vector<float> sinks(static_cast<size_t>(pool.threads()) * 16);
  const auto raise = [](double& best, double found) { best = std::max(best, found); };
  const auto burn = [&](double& best, auto function, int64_t steps) {
    raise(best, best_rate(pool, kRounds, [&](int32_t item) {
            return function(steps, &sinks[static_cast<size_t>(item) * 16]);
          }));
  };
  burn(ceilings.f32_gflops, kernel.burn_f32, int64_t{2} << 20);
  burn(ceilings.bf16_gflops, kernel.burn_bf16, int64_t{2} << 20);
  burn(ceilings.exp_grate, kernel.burn_exp, int64_t{1} << 18);
  burn(
      ceilings.int8_gops,
      [&](int64_t steps, float* sink) { return burn_int8(ceilings.isa, steps, sink); },
      int64_t{2} << 20);
  TRY(const double bandwidth, read_rate(pool, kMemoryBytes, 1));
  TRY(const double l3, read_rate(pool, kL3Bytes, 64));
  raise(ceilings.bandwidth_gbps, bandwidth);
  raise(ceilings.l3_gbps, l3);
  const double threads = pool.threads();
  const double dot = kernel.rounds_q ? kReferenceDot : kReferenceFma;
  ceilings.noisy = ceilings.f32_gflops < 0.9 * threads * kReferenceFma ||
                   ceilings.bf16_gflops < 0.9 * threads * dot ||
                   ceilings.bandwidth_gbps < 0.9 * threads * kReferenceBandwidth;
  return {};
}

Expected<Ceilings> measure_ceilings(int threads, ops::cpu::Isa isa) {
  Ceilings ceilings{.threads = threads, .isa = isa};
  for (int pass = 0; pass < kMostPasses; ++pass) {
    const Ceilings before = ceilings;
    TRY_STATUS(raise_ceilings(ceilings));
    if (ceilings.risen_over(before) < kSettled || Interrupt::came()) break;
  }
  return ceilings;
}

// Not sysconf's figure: on virtual machines that is the whole host's.
int64_t last_level_cache() {
  constexpr int64_t kUsual = int64_t{32} << 20;
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index3/size");
  std::string text;
  if (!std::getline(file, text)) return kUsual;
  const auto bytes = parse_size(text, "size");
  return bytes && *bytes > 0 ? *bytes : kUsual;
}

}  // namespace coppice::tools
