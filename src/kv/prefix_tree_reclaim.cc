// What goes under pressure: overlays, leaves, and of elastic scopes what thinning gives back.
#include <algorithm>

#include "base/check.h"
#include "kv/prefix_tree.h"

namespace coppice::kv {

// ---- thinning

int32_t PrefixTree::epochs_to(const Node* node) {
  int32_t epochs = 0;
  for (; node != nullptr; node = node->parent) epochs += node->epoch;
  return epochs;
}

// Slots are counted along the path, and a thinned run has fewer.
void PrefixTree::move_down(Node* node, std::span<const int32_t> slots) {
  for (const std::unique_ptr<Node>& child : node->children) {
    for (size_t i = 0; i < slots.size(); ++i) child->gated->starts[i] -= slots[i];
    move_down(child.get(), slots);
  }
}

void PrefixTree::thin(Node* node) {
  CHECK(node->thinnable());
  // What a row right behind the run sees for its window's sake stays.
  const int64_t tokens = node->size() - node->tier->rule.window + 1;
  gone_.resize(static_cast<size_t>(lists_));
  const int64_t pages = runs_.thin(*node->gated, tokens, gone_);
  if (pages == 0) {
    node->spent = true;
  } else {
    ++node->epoch;
    tokens_thinned_ += node->size();
    pages_thinned_ += pages;
    move_down(node, gone_);
  }
  refresh(node);
}

// ---- making room

// The colder of the coldest unreferenced node and the coldest inner boundary's overlay.
void PrefixTree::reclaim_one() {
  const ReclaimQueue::Entry* entry = queue_.coldest(clock_);
  const OverlayQueue::Entry* overlay = overlays_.coldest(clock_);
  if (overlay != nullptr &&
      (entry == nullptr || overlay->coldness(clock_) >= entry->coldness(clock_))) {
    Node* node = overlay->node;
    runs_.drop_overlay(*node->gated);
    ++overlays_freed_;
    return refresh(node);
  }
  Node* node = entry->node;
  if (node->thinnable()) return thin(node);
  Node* parent = node->parent;
  const bool root = parent->is_root();
  tokens_reclaimed_ += node->computed;
  remove(node);
  if (!root) drop_tombstones(parent);
}

// Upwards from `node`: a leaf whose overlay was freed is held for nothing.
void PrefixTree::drop_tombstones(Node* node) {
  while (node->is_tombstone() && node->references() == 0) {
    Node* parent = node->parent;
    const bool root = parent->is_root();
    tokens_reclaimed_ += node->computed;
    remove(node);
    if (root) return;
    node = parent;
  }
}

bool PrefixTree::make_room(int64_t pages) {
  while (pool_.room() < pages && queue_.size() + overlays_.size() > 0) reclaim_one();
  return pool_.room() >= pages;
}

void PrefixTree::reclaim_all() {
  std::vector<Node*> roots;
  for (const auto& [scope, root] : roots_) roots.push_back(root.get());
  for (Node* root : roots) reclaim_below(root);
}

void PrefixTree::reclaim_below(Node* node) {
  std::vector<Node*> children;
  for (const std::unique_ptr<Node>& child : node->children) children.push_back(child.get());
  for (Node* child : children) {
    if (!child->children.empty()) reclaim_below(child);
    if (child->references() > 0) continue;
    tokens_reclaimed_ += child->computed;
    remove(child);
  }
}

}  // namespace coppice::kv
