// What:    the tree of token runs and the changes that keep it a tree of pages: split, join, merge,
//          steal, remove; what matches; what may be reclaimed.
// Owns:    the nodes; takes pages from the pool it is given.
// Threads: one.
// Fails:   never; a broken precondition is a CHECK.
//
//   root of a scope
//     |-- [company prompt ............]            interior: a multiple of P tokens, all pages full
//     |      |-- [team A ..... ]                   start of every node: a multiple of P (gated
//     |      |      |                              scopes: runs start and end at boundaries)
//     |      |      |-- (tail of sequence 7)       one leaf per live sequence, perhaps empty
//     |      |      `-- (tail of sequence 9)
//     |      `-- [an old answer, retained]         leaf without owner: reclaimable
//     `-- ...
//
//   split(X, 2P)      X: [a b | c d | e f]    ->   U: [a b | c d]  --  X: [e f]     (P = 2)
//   join(Y, X, P)     X: [a b | c d]               U: [a b]  --+-- X: [c d]         Y's own page of
//                     Y: [a b | e]            ->               `-- Y: [e]           a b goes back
//
//   thin(X)           X: k k k k|k k k k|k .  ->   X: k k k k|k .          (P = 4; kept slots)
//                     Y:                 k k k|k         Y:    k k k|k     Y's starts are P less
//
// Invariants (KvCache::check_invariants names them by these numbers)
//    1. Every page is free or in exactly one node; pages in nodes and pages of charged bytes
//       together == pool.held().
//    2. Every node starts where its parent ends, at a multiple of P; a node with children holds a
//       multiple of P tokens (roots hold none).
//    3. computed <= size; a node holds keys and values only if its parent is complete; its pages
//       cover the computed slots, the slots reserved in this step, and not a column more.
//    4. Siblings stand ordered by their first P tokens; no two of them hold the same full page.
//    5. Ages are distinct among siblings (a waiter waits only for older nodes: no cycle).
//    6. Live sequences and owned leaves are one to one; the path to a tail spells the sequence.
//    7. What is planned but not computed has a live sequence at or below it.
//    8. live and pinned count the owners and pins at or below; a node with neither stands in the
//       reclaim queue if it is without children or may be thinned, and holds at least one token.
//    9. A pin stands at the node that holds its last token, and that token is computed.
//   10. Rows reserved in this step continue what is computed; an interior node is written by the
//       oldest sequence below it.
//   11. The totals (nodes, tokens held, pages and charged bytes reclaimable) equal a recount.
//   12. Pages held exceed the budget only where the queues are empty: no unreferenced leaf, no
//       run to be thinned, no overlay of an inner boundary is left.
//   13. In a gated scope runs start and end anywhere (2), siblings may begin alike (4), and a first
//       page is an ancestor's last, where nobody else went on in it, or the run's own (1); else 1
//       to 11 hold there too. A run that is complete and not a tail has an overlay, or its was
//       freed and no child is still to start from it; its lists' lengths agree with its decisions,
//       what it is charged with them and its gate's memory.
//   14. Thinned (epoch > 0) are runs of elastic scopes only, no more than kMostEpochs times; of
//       what they gave back no byte says that it is held, and none that is protected is among it.
//       A run was born under no later epochs than those above it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "kv/node.h"
#include "kv/page_pool.h"

namespace coppice::kv {

class PrefixTree {
 public:
  PrefixTree(PagePool& pool, int32_t lists, std::unique_ptr<ReclaimPolicy> policy)
      : pool_(pool),
        runs_(pool, lists),
        lists_(lists),
        page_slots_(pool.page_slots()),
        queue_(std::move(policy)) {}

  // --- look
  Node* root(const Scope& scope) const;  // null: nothing in that scope
  const std::map<Scope, std::unique_ptr<Node>>& roots() const { return roots_; }

  enum class Count { kHeld, kPlanned };
  struct Reach {
    Node* node = nullptr;   // holds token length-1, or `from`
    Node* child = nullptr;  // the child of `from` on the way to node, or null
    int64_t length = 0;     // tokens in common from position 0
  };
  // The longest prefix of `tokens` along one path below `from` (whose own path is taken to match),
  // counting held or planned tokens, looking only at nodes older than `older_than` and not at
  // `except`.
  Reach longest(Node* from, std::span<const TokenId> tokens, Count count,
                const Node* except = nullptr, uint64_t older_than = UINT64_MAX) const;
  // An unowned leaf below `parent` whose run is exactly `run`, or null.
  Node* unowned_leaf(Node* parent, std::span<const TokenId> run) const;
  // The sibling that holds the same first page as `node`, or null.
  Node* twin(Node* node) const;

  // --- shape. Every change keeps live sequences' tails and pins where their tokens are.
  Node* make_root(const Scope& scope);
  Node* add_child(Node* parent, std::span<const TokenId> tokens, SequenceId owner);
  // Cuts at a multiple of P, 0 < at <= size: the upper part is a new node (returned), the lower one
  // keeps its identity, owner and children.
  Node* split(Node* node, int64_t at);
  // `node` takes the path of its sibling `held` for its first `at` tokens, which are computed
  // there. Its own pages for them go back. The node may end (its children then hang below
  // `held`'s).
  void join(Node* node, Node* held, int64_t at);
  // Joins `node`, whose first page is computed, with siblings that hold the same, down the tree.
  void join_twins(Node* node);
  // After rows were committed along the path to `tail`: joins twins, merges what stands alone.
  void settle(Node* tail);
  // `node` holds nothing yet and shares `slots` < P tokens with the unreferenced leaf `from`: its
  // first page moves over and the leaf ends.
  void steal(Node* node, Node* from, int64_t slots);
  // Upwards from `node`: a parent with no other child and no pin of its own becomes one with it,
  // unless that would tie a recently used prefix to a forgotten leaf.
  void merge_upwards(Node* node);
  void append(Node* tail, TokenId token);
  void own(Node* leaf, SequenceId owner);  // an unowned leaf becomes a tail
  // The tail's owner leaves: cuts what nobody computes any more, drops what others hold as well.
  void release(Node* tail, uint64_t clock);

  // --- gated scopes (prefix_tree_gated.cc). There a node is what lies between two boundaries; a
  // sequence starts at boundaries only, so siblings may begin alike.
  struct Start {
    Node* node = nullptr;  // the boundary's, or one to be cut for it
    int64_t length = 0;    // tokens up to it
  };
  // The last boundary on the way of `tokens` at which a sequence may start: held, or also where
  // somebody is still to write.
  Start last_start(Node* root, std::span<const TokenId> tokens, Count count) const;
  // The tail of a sequence that goes on below a boundary; nobody joins it from publish_end on.
  Node* add_tail(Node* parent, std::span<const TokenId> tokens, SequenceId owner,
                 int64_t publish_end);
  // Makes the start a node's end.
  Node* cut(const Start& start, uint64_t clock);
  // What `node` has computed becomes a run of its own that ends in an overlay; a tail goes on in
  // an empty node below. Returns the run.
  Node* seal(Node* node, uint64_t clock);
  // `node` was sealed: siblings that begin with all of its tokens hang below it; where it begins
  // with all of a sealed sibling's, it hangs below that one; where both hold the same, one goes.
  // Two runs that part before either ends stay apart. Returns the node that holds the run now.
  Node* graft_twins(Node* node);
  // Positions of the last dropped tokens of list up to the node's end, ascending.
  void dropped_positions(const Node* node, int32_t list, std::span<int32_t> out) const;
  void start_run(Node* node);
  GatedRuns& runs() { return runs_; }
  const GatedRuns& runs() const { return runs_; }
  // Where `rest`, the tokens below `node`, parts from what is held there, and where runs end on the
  // way.
  std::vector<int64_t> partings(const Node* node, std::span<const TokenId> rest) const;
  void refresh_gated(Node* node) { refresh(node); }

  // --- references (owner or pin at `node`)
  void add_live(Node* node, int32_t delta);
  void add_pinned(Node* node, int32_t delta);
  void pin(Node* node, PinHold hold);
  void unpin(Node* node, PinId id);

  // --- pages
  void add_columns(Node* node, int64_t columns);
  void drop_unused_columns(Node* node);  // beyond the computed slots
  void advance(Node* node, int64_t slots);
  // Pages that become free once all goes that nobody uses. Charged bytes make up pages together,
  // so theirs are what is left less of them, not their own rounded.
  int64_t reclaimable() const {
    return reclaimable_pages_ + overlay_pages_ + pool_.pages_for(pool_.charged()) -
           pool_.pages_for(pool_.charged() - reclaimable_bytes_);
  }
  // Pages that could be handed out now: free ones and reclaimable ones, less what a shrunken budget
  // lacks.
  int64_t room() const { return pool_.room() + reclaimable(); }
  // Pages that no reclaiming frees while the pins stand.
  int64_t pinned_pages() const;
  // Reclaims until the pool has `pages` free; false where too few leaves are unreferenced.
  bool make_room(int64_t pages);
  void reclaim_all();
  // The sum of epochs of a node and those above: which version of its path it is.
  static int32_t epochs_to(const Node* node);

  // --- totals
  int64_t nodes() const { return nodes_; }
  int64_t tokens_held() const { return tokens_held_; }
  int64_t tokens_reclaimed() const { return tokens_reclaimed_; }
  int64_t reclaimable_pages() const { return reclaimable_pages_; }  // of whole nodes
  int64_t reclaimable_bytes() const { return reclaimable_bytes_; }  // charged
  int64_t overlay_pages() const { return overlay_pages_; }          // of the queued ones
  int64_t overlays_freed() const { return overlays_freed_; }
  int64_t tokens_thinned() const { return tokens_thinned_; }
  int64_t pages_thinned() const { return pages_thinned_; }
  size_t queued_overlays() const { return overlays_.size(); }
  size_t queued() const { return queue_.size(); }
  uint64_t next_age() { return ++ages_; }
  // Where pins moved to, for whoever keeps ids of pins.
  std::function<void(PinId, Node*)> on_pin_moved;

 private:
  int64_t pinned_pages(const Node* node, int64_t& charged) const;
  size_t first_not_before(const Node* parent, std::span<const TokenId> run) const;
  void attach(Node* parent, std::unique_ptr<Node> child);
  std::unique_ptr<Node> detach(Node* child);
  std::unique_ptr<Node>& slot_of(Node* node) const;
  void remove(Node* leaf);
  void forget(Node* node);  // takes the node out of the totals and the queue
  void refresh(Node* node);
  void move_pins(Node* from, Node* to, int64_t up_to);
  void narrow_to_pins(Node* node);
  void trim(Node* node);
  void cut_front(Node* node, int64_t at);
  void drop_if_held_beside(Node* leaf);
  void find_start(Node* from, std::span<const TokenId> tokens, Count count, Start& best) const;
  void find_partings(const Node* node, std::span<const TokenId> rest,
                     std::vector<int64_t>& out) const;
  Node* split_gated(Node* node, int64_t at);
  void hang_below(Node* node, Node* upper);
  void release_gated(Node* tail, uint64_t clock);
  void refresh_overlay(Node* node);
  void reclaim_one();
  void drop_tombstones(Node* node);
  void reclaim_below(Node* node);
  void thin(Node* node);
  void move_down(Node* node, std::span<const int32_t> slots);
  void note(uint64_t clock) { clock_ = std::max(clock_, clock); }
  void give_back(std::vector<PageId>& ids);

  PagePool& pool_;
  GatedRuns runs_;
  int32_t lists_;
  int32_t page_slots_;
  std::map<Scope, std::unique_ptr<Node>> roots_;
  ReclaimQueue queue_;
  OverlayQueue overlays_;
  std::vector<PageId> scratch_;
  std::vector<int32_t> gone_;  // [lists] of thin()
  uint64_t ages_ = 0;
  uint64_t clock_ = 0;  // the latest that anything was used at
  int64_t nodes_ = 0;
  int64_t tokens_held_ = 0;
  int64_t tokens_reclaimed_ = 0;
  int64_t reclaimable_pages_ = 0;
  int64_t reclaimable_bytes_ = 0;  // charged by the same nodes, and by the queued overlays
  int64_t overlay_pages_ = 0;
  int64_t overlays_freed_ = 0;
  int64_t tokens_thinned_ = 0;
  int64_t pages_thinned_ = 0;
};

}  // namespace coppice::kv
