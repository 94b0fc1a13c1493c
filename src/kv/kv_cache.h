// What:    the facade of the prefix-aware KV cache (PAKV): match, reserve, plan, commit, release.
// Owns:    the prefix tree, the page pool and its arena, the live sequences' places in the tree.
// Threads: one (the engine's); nothing here locks.
// Fails:   create: kTooLarge, kInvalidArgument. "No room now" is an empty optional, never an error.
//          An unknown sequence, or a call out of turn, is a CHECK.
//
// A step:  progress(s) for every live sequence -> reserve(s, n) for those that advance -> plan() ->
//          the model runs the plan -> commit() (or abandon()).
// Between plan() and commit() or abandon() the tree stands still: only looking and append() are
// allowed. Before plan() everything is: a sequence that has rows may be closed to make room.
//
// Waiting. What an older live sequence is about to compute, a younger one waits for (blocked), be
// it the prefix above both or the part of a page beside it; so every open sequence must be advanced
// in turn, oldest first: one that cannot be admitted is closed, not kept.
// Source: ChunkAttention (arXiv 2402.15220) section 3.1 and the architecture's sections 1 and 4.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "coppice/error.h"
#include "ops/backend.h"
#include "ops/gate_plan.h"

namespace coppice::kv {

using TokenId = int32_t;
using SequenceId = uint64_t;  // never reused; 0 is no sequence
using PinId = uint64_t;       // never reused; 0 is no pin

// Prefixes are shared inside a scope and never across: (model, adapter, tier, tenant salt) spelled
// out. Compared whole.
using Scope = std::string;

// In a gated scope a token is another key where no gate may drop it: tokens that carry this bit.
inline constexpr TokenId kExactToken = TokenId{1} << 30;

// What a gated scope runs under; the same for all of its sequences.
struct Tier {
  ops::GateRule rule;
  bool decode_gate = true;    // false: generated tokens are all kept, and never published
  int64_t memory_floats = 0;  // that the gate carries from token to token, all layers together
  bool elastic = false;       // what nobody uses may be thinned under pressure, before it is freed
  bool operator==(const Tier&) const = default;
};

struct OpenOptions {
  const Tier* tier = nullptr;  // null: an ungated scope
  // Positions at which later requests are likely to part: ends of messages, breakpoints. Ascending;
  // there a gated sequence leaves what one that starts there needs. Ungated ones may part anywhere.
  std::span<const int64_t> boundaries = {};
  int64_t prompt = 0;  // leading tokens that were not generated; 0: all
};

struct KvCacheOptions {
  int32_t layers = 0;    // L
  int32_t kv_heads = 0;  // Hkv
  int32_t head_dim = 0;  // D
  DType kv_type = DType::kBF16;
  int64_t budget_bytes = 0;      // hard bound on pages held
  int64_t max_budget_bytes = 0;  // address space reserved for later growth; 0: budget_bytes
};

// How far a live sequence is, before a step.
struct Progress {
  int64_t tokens = 0;    // planned: prompt plus appended
  int64_t computed = 0;  // leading tokens whose keys and values are held: rows start here
  bool blocked = false;  // the next token is being written by another sequence: wait, take no rows
};

// A sequence's rows in the step's plan.
struct Slice {
  SequenceId sequence = 0;
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int64_t position = 0;  // of its first row
};

enum class Partition { kTwoPhase, kPerSequence };

struct Step {
  ops::AttentionPlan plan;
  std::vector<TokenId> tokens;     // [T] in plan order
  std::vector<int32_t> positions;  // [T]
  std::vector<Slice> slices;       // in plan order (depth-first leaf order)
  ops::GatePlan gate;              // the gated rows, decided layer by layer while the plan runs
};

struct MatchInfo {
  int64_t held = 0;     // leading tokens whose keys and values are held now
  int64_t planned = 0;  // leading tokens held or being written by a live sequence
  int32_t epoch = 0;    // highest of the nodes that hold them: how often one was thinned
};

struct KvStats {
  int64_t pages_total = 0, pages_free = 0;
  int64_t page_bytes = 0;
  int64_t bytes_held = 0;         // (total - free) * page_bytes
  int64_t bytes_reclaimable = 0;  // of them, kept for later requests alone
  int64_t bytes_per_token = 0;    // ungated: L * Hkv * (2 * D * element bytes + scales)
  int64_t nodes = 0, live_sequences = 0, pins = 0;
  int64_t expiring_pins = 0;     // of the pins, those with a time to live
  int64_t references = 0;        // live sequences' and pins' holds on nodes
  int64_t tokens_held = 0;       // over all nodes, each once
  int64_t tokens_reclaimed = 0;  // since creation
  int64_t tokens_copied = 0;     // partial pages copied at branches, since creation
  int64_t overlays = 0;          // of gated scopes' inner boundaries, that pressure may free
  int64_t overlays_freed = 0;    // under pressure, since creation
  int64_t tokens_thinned = 0;    // in the nodes that were thinned, every time, since creation
  int64_t pages_thinned = 0;     // that this gave back
};

// Order in which whole unpinned leaves are given back under pressure.
class ReclaimPolicy {
 public:
  virtual ~ReclaimPolicy() = default;
  struct Candidate {
    uint64_t last_used;  // step clock of the last sequence that held the leaf
    int64_t tokens;      // in the leaf
    int64_t depth;       // tokens before it: recomputing costs more the deeper it lies
  };
  // True when a should go before b.
  virtual bool before(const Candidate& a, const Candidate& b) const = 0;
};
std::unique_ptr<ReclaimPolicy> least_recently_used();

class KvCache {
 public:
  static Expected<std::unique_ptr<KvCache>> create(ops::Backend& backend,
                                                   const KvCacheOptions& options,
                                                   std::unique_ptr<ReclaimPolicy> policy);
  virtual ~KvCache() = default;

  // --- look
  virtual MatchInfo match(const Scope& scope, std::span<const TokenId> tokens) const = 0;
  virtual Progress progress(SequenceId id) const = 0;
  virtual KvStats stats() const = 0;
  // What is held of a sequence's computed tokens: kept entries over tokens per layer [L] (1 in an
  // ungated scope), and the bytes of its path, shared or not, overlays and probabilities included.
  // thinned: what of its path others hold thinned, from the root down.
  struct Thinned {
    int64_t begin = 0, end = 0;  // tokens
    int32_t epoch = 0;           // how often
  };
  struct Footprint {
    std::vector<double> keep_ratio;
    int64_t bytes = 0;
    std::vector<Thinned> thinned;
  };
  virtual Footprint footprint(SequenceId id) const = 0;

  // --- live sequences
  // Joins the tree at the longest common prefix, planned tokens of running writers included, but
  // always leaves the last token to be evaluated by the new sequence. Takes no pages. tokens must
  // not be empty. In a gated scope it joins at the last boundary on that way, or where another is
  // still to write: what lies between there and where the two part is evaluated again.
  virtual SequenceId open(const Scope& scope, std::span<const TokenId> tokens,
                          const OpenOptions& options = {}) = 0;
  // A second sequence with the same tokens; shares everything held so far (its last token is
  // evaluated again only if the original had not evaluated it).
  virtual SequenceId fork(SequenceId id) = 0;
  // One more token to evaluate (the one just sampled).
  virtual void append(SequenceId id, TokenId token) = 0;
  // The sequence ends (finished, cancelled, preempted alike): what it computed stays as a
  // reclaimable prefix; what it was still writing passes to the oldest follower.
  virtual void close(SequenceId id) = 0;

  // --- room
  // Promises `total_tokens` worth of pages to the sequence if that fits beside all earlier promises
  // (counting what could be reclaimed); false: no room now. Never frees anything by itself.
  // The promise is kept against the reservations of others. It counts on what is reclaimable now,
  // so it is not kept against set_budget(), pin(), or a later open() or fork() that takes such
  // pages into use again: admit() such a sequence, and close it where that fails; unpin() where
  // overpromised_pages() rose.
  virtual bool admit(SequenceId id, int64_t total_tokens) = 0;
  // Pages promised beyond what is free or reclaimable; 0: every promise can be kept.
  virtual int64_t overpromised_pages() = 0;
  // Bytes that a lone sequence of so many tokens needs at worst.
  virtual int64_t worst_case_bytes(int64_t total_tokens, const OpenOptions& options = {}) const = 0;
  // At most max_budget_bytes. Shrinking reclaims at once as far as unreferenced leaves go; returns
  // false while live and pinned pages still exceed the new budget (the caller preempts and asks
  // again).
  virtual bool set_budget(int64_t bytes) = 0;
  // Frees every unreferenced, unpinned node.
  virtual void flush() = 0;

  // --- pins
  // Protects the held prefix of `tokens` from reclaim until unpin(), or until expire() is given a
  // time `ttl_seconds` after the last one it was given; 0: no expiry. Returns the pin and how many
  // tokens it covers (0 tokens: nothing held, no pin).
  struct Pin {
    PinId id = 0;
    int64_t tokens = 0;
  };
  virtual Pin pin(const Scope& scope, std::span<const TokenId> tokens, double ttl_seconds) = 0;
  virtual bool unpin(PinId id) = 0;             // false: unknown or expired
  virtual void expire(double now_seconds) = 0;  // the caller's clock
  // Of pages that stay held while the pins stand: the least that set_budget() can shrink to.
  virtual int64_t pinned_bytes() const = 0;

  // --- a step
  // Adds the next tokens of a sequence to the step, once a step, at most n, at least 1: returns how
  // many it took (it stops where another sequence writes, at the planned end, and where the room
  // ends); empty: blocked, or no room now, and no rows taken. The rows start at progress().computed
  // as it was: partial pages held by a sibling are copied here. Before that the path is joined with
  // what siblings hold, and there an older sequence may be at work: so after an empty answer
  // progress() tells whether the sequence is blocked by now or found no room.
  virtual std::optional<int32_t> reserve(SequenceId id, int32_t n) = 0;
  // Its gate is the model's to fill in while the plan runs.
  virtual Step& plan(Partition partition) = 0;
  virtual void commit() = 0;   // the rows' keys and values are in their pages
  virtual void abandon() = 0;  // the step did not run: its pages go back

  virtual const ops::KvArena& arena() const = 0;
  // Every invariant of the tree, the pool and the sequences, by number; CHECK-fails with the
  // number.
  virtual void check_invariants() const = 0;
};

}  // namespace coppice::kv
