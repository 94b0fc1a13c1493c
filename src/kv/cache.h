// What:    the KvCache behind the facade: sequences, waiting, room, pins and steps over one tree.
// Owns:    the page pool, the prefix tree, the live sequences, the pins, the step under way.
// Threads: one.
// Fails:   as kv_cache.h says.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "kv/kv_cache.h"
#include "kv/planner.h"
#include "kv/prefix_tree.h"

namespace coppice::kv {

class Cache final : public KvCache {
 public:
  Cache(PagePool pool, const KvCacheOptions& options, std::unique_ptr<ReclaimPolicy> policy);

  MatchInfo match(const Scope& scope, std::span<const TokenId> tokens) const override;
  Progress progress(SequenceId id) const override;
  KvStats stats() const override;
  Footprint footprint(SequenceId id) const override;

  SequenceId open(const Scope& scope, std::span<const TokenId> tokens,
                  const OpenOptions& options) override;
  SequenceId fork(SequenceId id) override;
  void append(SequenceId id, TokenId token) override;
  void close(SequenceId id) override;

  bool admit(SequenceId id, int64_t total_tokens) override;
  int64_t overpromised_pages() override;
  int64_t worst_case_bytes(int64_t total_tokens, const OpenOptions& options) const override;
  bool set_budget(int64_t bytes) override;
  void flush() override;

  Pin pin(const Scope& scope, std::span<const TokenId> tokens, double ttl_seconds) override;
  bool unpin(PinId id) override;
  void expire(double now_seconds) override;
  int64_t pinned_bytes() const override { return tree_.pinned_pages() * pool_.page_bytes(); }

  std::optional<int32_t> reserve(SequenceId id, int32_t n) override;
  Step& plan(Partition partition) override;
  void commit() override;
  void abandon() override;

  const ops::KvArena& arena() const override { return pool_.arena(); }
  void check_invariants() const override;

 private:
  struct Sequence {
    std::vector<TokenId> tokens;  // all planned
    Node* tail = nullptr;
    // Leading tokens that may come from others; the rest (the last one, whose logits it wants) it
    // evaluates itself.
    int64_t shareable = 0;
    int64_t promised = 0;  // tokens that admit() promised pages for
    int64_t position = 0;  // of the rows reserved in this step
    int32_t rows = 0;      // 0: none
    // In a gated scope:
    std::shared_ptr<const Tier> tier;
    std::vector<int64_t> boundaries;  // ascending: positions where its runs end
    int64_t prompt = 0;               // tokens that were there when it was opened
  };
  struct PinRecord {
    Node* node = nullptr;
    double expires = 0;  // infinity: never
  };
  // Where a sequence goes on: the first node of its path that is not complete, what others hold of
  // its tokens, and whether it must wait for one of them.
  struct Frontier {
    Node* node = nullptr;  // null: nothing left to compute
    PrefixTree::Reach held;
    int64_t reach = 0;  // leading tokens held: in node or, for its first page, beside it
    bool blocked = false;
  };

  struct Recount;  // invariants, by number (prefix_tree.h)

  const Sequence& at(SequenceId id) const;
  Sequence& at(SequenceId id);
  Node* place(const Scope& scope, std::span<const TokenId> tokens, SequenceId id);
  Frontier frontier(SequenceId id, const Sequence& sequence) const;
  bool waits_for_elders(const Node* node, const Sequence& sequence, int64_t reach) const;

  // Joins what siblings hold of whole pages and finds what they hold of the next one; null:
  // nothing.
  Node* bring_in(SequenceId id, const Sequence& sequence, Frontier& frontier);
  // --- gated scopes (cache_gated.cc)
  void place_gated(const Scope& scope, SequenceId id, Sequence& sequence);
  void fork_gated(const Sequence& original, SequenceId fork_id, Sequence& fork);
  std::optional<int32_t> reserve_gated(SequenceId id, Sequence& sequence, const Frontier& frontier,
                                       int32_t n);
  static std::span<const TokenId> joinable(const Sequence& sequence, int64_t shareable);
  int64_t pages_for(const Node* node, int32_t rows) const;
  // The most pages that so many more tokens of a sequence can come to need.
  int64_t gated_pages(const Tier& tier, int64_t tokens, int64_t boundaries) const;
  int64_t owed_gated(const Sequence& sequence, const Node* node, int64_t end) const;
  int64_t next_boundary(const Sequence& sequence, int64_t position) const;
  bool is_boundary(const Sequence& sequence, int64_t position) const;
  Node* written_node(const Sequence& sequence) const;
  void describe_gate();
  void commit_gated();
  void seal_gated(Sequence& sequence, Node* node);
  void abandon_gated(Sequence& sequence);
  // [lists] of a node that is written in this step, as they were before it.
  struct Counts {
    std::span<const int32_t> kept, dropped;
  };
  Counts counts_before(const Node* node) const;
  void check_gated(const Node* node, Recount& recount) const;

  // Takes pages for up to n rows, and copies the `source`'s part of the first page; 0: no room.
  int32_t take_rows(const Sequence& sequence, const Frontier& frontier, Node* source, int32_t n);
  // Rows that could follow, at most n, and the columns they need, as wanted_columns on path_.
  int32_t want(const Sequence& sequence, const Frontier& frontier, int32_t n);
  void want_nothing();
  // Takes the wanted columns if that leaves others what they were promised.
  bool take_wanted(const Sequence& sequence);
  bool leaves_promises(int64_t pages, int64_t promised);
  int64_t promised_of(const Sequence& sequence, const Node* node, int64_t pages) const;
  bool promised_below(const Node* node) const;
  bool steal(const Sequence& sequence, const Frontier& frontier, Node* source);
  void copy_first_page(SequenceId id, const Sequence& sequence);
  void copy_slots(Node* node, const Node* from, int64_t slots);
  int64_t owed_pages();
  int64_t owed_for(const Sequence& sequence, const Node* node) const;
  void release_rows(Sequence& sequence);
  void end_step();

  void check_node(const Node* node, Recount& recount) const;
  void check_pages(const Node* node, Recount& recount) const;
  void check_children(const Node* node) const;
  void check_sequences(const Recount& recount) const;
  void check_pins() const;
  void check_totals(const Recount& recount) const;

  const int32_t lists_;  // L * Hkv
  const KvCacheOptions options_;
  PagePool pool_;
  const int32_t page_slots_;
  PrefixTree tree_;
  Planner planner_;
  std::map<SequenceId, Sequence> sequences_;  // by age
  std::map<PinId, PinRecord> pins_;
  std::vector<SequenceId> reserved_;  // in the order of their reservations
  std::vector<Reservation> reservations_;
  std::vector<Node*> path_;
  // Of the gated slices of the step, one after another: [slices][lists], keep
  // [slices][lists][rows].
  std::vector<ops::GateList> gate_lists_;
  std::vector<int32_t> counts_before_, dropped_before_;
  std::vector<uint8_t> keep_, exact_;
  Step step_;
  bool planned_ = false;
  SequenceId last_sequence_ = 0;
  PinId last_pin_ = 0;
  uint64_t clock_ = 1;
  uint64_t admission_mark_ = 0;
  double now_ = 0;
  int64_t tokens_copied_ = 0;
};

}  // namespace coppice::kv
