#include "ops/attention_cases.h"

#include <algorithm>
#include <numeric>

namespace coppice::ops {

Forest::Forest(const KvLayout& layout, std::byte* memory, int32_t pages, int32_t lists)
    : arena_{memory, layout}, pages_(pages), lists_(lists) {
  CHECK(pages >= 1 && lists >= 1);
}

int32_t Forest::add_node(int32_t parent, std::vector<int32_t> counts) {
  if (counts.size() == 1) counts.resize(static_cast<size_t>(lists_), counts[0]);
  CHECK(counts.size() == static_cast<size_t>(lists_));
  const auto id = static_cast<int32_t>(nodes_.size());
  const int32_t slots = arena_.layout.page_slots;
  ForestNode node;
  node.parent = parent;
  node.counts = std::move(counts);
  for (int32_t list = 0; list < lists_; ++list) {
    const int32_t above = parent < 0 ? 0 : path_slots(parent, list);
    node.starts.push_back(above / slots * slots);
    node.copied.push_back(above % slots);
    node.counts[static_cast<size_t>(list)] += above % slots;
  }
  if (parent >= 0) nodes_[static_cast<size_t>(parent)].children.push_back(id);
  return add_pages(std::move(node));
}

int32_t Forest::add_dropped(std::vector<int32_t> starts, std::vector<int32_t> counts) {
  const auto lists = static_cast<size_t>(lists_);
  CHECK(starts.size() == lists && counts.size() == lists);
  for (const int32_t start : starts) CHECK(start % arena_.layout.page_slots == 0);
  ForestNode node;
  node.dropped = true;
  node.starts = std::move(starts);
  node.counts = std::move(counts);
  node.copied.resize(lists);
  return add_pages(std::move(node));
}

// Gives a node the pages that its counts need, and one more in every list.
int32_t Forest::add_pages(ForestNode node) {
  const int32_t slots = arena_.layout.page_slots;
  for (const int32_t count : node.counts) {
    node.page_stride = std::max(node.page_stride, (count + slots - 1) / slots + 1);
  }
  for (const int32_t count : node.counts) {
    const int32_t used = (count + slots - 1) / slots;
    for (int32_t i = 0; i < node.page_stride; ++i) {
      node.pages.push_back(i < used ? next_page_++ : foreign_page());
    }
  }
  CHECK(next_page_ < pages_);
  nodes_.push_back(std::move(node));
  return static_cast<int32_t>(nodes_.size()) - 1;
}

std::vector<int32_t> Forest::path(int32_t node) const {
  std::vector<int32_t> nodes;
  for (; node >= 0; node = nodes_[static_cast<size_t>(node)].parent) nodes.push_back(node);
  std::reverse(nodes.begin(), nodes.end());
  return nodes;
}

int32_t Forest::path_slots(int32_t node, int32_t list) const {
  const ForestNode& n = nodes_[static_cast<size_t>(node)];
  return n.starts[static_cast<size_t>(list)] + n.counts[static_cast<size_t>(list)];
}

KvPart Forest::part(int32_t node) const {
  const ForestNode& n = nodes_[static_cast<size_t>(node)];
  KvPart part{.pages = n.pages.data(), .page_stride = n.page_stride};
  const auto equal = [](const std::vector<int32_t>& values) {
    return std::all_of(values.begin(), values.end(), [&](int32_t v) { return v == values[0]; });
  };
  part.start = n.starts[0];
  part.count = n.counts[0];
  if (!equal(n.starts)) part.starts = n.starts.data();
  if (!equal(n.counts)) part.counts = n.counts.data();
  return part;
}

struct Forest::Maker {
  const Forest& forest;
  const PlanStyle& style;
  std::mt19937& random;
  CasePlan& out;
  std::vector<int32_t> order;                         // sequences in row order
  std::vector<std::pair<int32_t, int32_t>> row_span;  // [nodes] rows at and below each node
  std::vector<int32_t> own_end;                       // [nodes] the first row below it
  std::vector<int32_t> late;                          // sequences whose dropped slots come last

  bool coin() { return std::uniform_int_distribution<int>(0, 1)(random) == 1; }
  int32_t below(int32_t n) { return std::uniform_int_distribution<int32_t>(0, n - 1)(random); }

  template <class T>
  void maybe_shuffle(std::vector<T>& values) {
    if (style.shuffle) std::shuffle(values.begin(), values.end(), random);
  }

  // Gives rows to the sequences at and below a node, depth first.
  void place_rows(int32_t node) {
    const int32_t begin = out.plan.rows;
    std::vector<int32_t> own;
    for (size_t s = 0; s < forest.sequences_.size(); ++s) {
      if (forest.sequences_[s].node == node) own.push_back(static_cast<int32_t>(s));
    }
    maybe_shuffle(own);
    for (const int32_t s : own) {
      order.push_back(s);
      out.row_of[static_cast<size_t>(s)] = out.plan.rows;
      out.plan.rows += forest.sequences_[static_cast<size_t>(s)].rows;
    }
    own_end[static_cast<size_t>(node)] = out.plan.rows;
    std::vector<int32_t> children = forest.nodes_[static_cast<size_t>(node)].children;
    maybe_shuffle(children);
    for (const int32_t child : children) place_rows(child);
    row_span[static_cast<size_t>(node)] = {begin, out.plan.rows};
  }

  // Which of a node's slots: those below it read copies of what lies in a page that is not full.
  enum class Take { kAll, kFullPages };

  // A node's pages from page index `from` up to `to` of every list.
  KvPart sub_part(int32_t node, Take take, int32_t from, int32_t to) {
    const ForestNode& n = forest.nodes_[static_cast<size_t>(node)];
    const int32_t slots = forest.arena_.layout.page_slots;
    std::vector<int32_t>& starts = out.arrays.emplace_back();
    std::vector<int32_t>& counts = out.arrays.emplace_back();
    for (size_t list = 0; list < n.counts.size(); ++list) {
      const int32_t full = n.counts[list] / slots * slots;
      const int32_t count = take == Take::kAll ? n.counts[list] : full;
      const int32_t first = std::min(from * slots, count);
      starts.push_back(n.starts[list] + first);
      counts.push_back(std::min(to * slots, count) - first);
    }
    KvPart part{.pages = n.pages.data() + from, .page_stride = n.page_stride};
    part.starts = starts.data();
    part.counts = counts.data();
    part.start = starts[0];
    part.count = counts[0];
    return part;
  }

  bool ends_inside_a_page(int32_t node) const {
    const std::vector<int32_t>& counts = forest.nodes_[static_cast<size_t>(node)].counts;
    const int32_t slots = forest.arena_.layout.page_slots;
    return std::any_of(counts.begin(), counts.end(), [&](int32_t n) { return n % slots != 0; });
  }

  std::vector<KvPart> parts_of(int32_t node, Take take) {
    const int32_t pages = forest.nodes_[static_cast<size_t>(node)].page_stride - 1;
    if (!style.cut_parts) {
      const bool all = take == Take::kAll || !ends_inside_a_page(node);
      return {all ? forest.part(node) : sub_part(node, take, 0, pages)};
    }
    std::vector<KvPart> parts;
    for (int32_t from = 0; from < pages;) {
      const int32_t to = std::min(pages, from + 1 + below(coin() ? 3 : 40));
      parts.push_back(sub_part(node, take, from, to));
      from = to;
    }
    return parts;
  }

  // One or several segments for rows [begin, end) over these parts; one for a row's dropped slots.
  void emit(int32_t begin, int32_t end, const std::vector<KvPart>& parts, bool dropped = false) {
    if (begin >= end || parts.empty()) return;
    if (style.cut_parts && end - begin > 1 && coin()) {
      const int32_t middle = begin + 1 + below(end - begin - 1);
      emit(begin, middle, parts, dropped);
      emit(middle, end, parts, dropped);
      return;
    }
    const auto first = static_cast<int32_t>(out.plan.parts.size());
    out.plan.parts.insert(out.plan.parts.end(), parts.begin(), parts.end());
    const auto last = static_cast<int32_t>(out.plan.parts.size());
    if (style.cut_parts && !dropped && coin()) {
      for (int32_t p = first; p < last; ++p) {
        out.plan.segments.push_back({begin, end, p, p + 1, false});
      }
    } else {
      out.plan.segments.push_back({begin, end, first, last, dropped});
    }
  }

  // Behind the kept slots of the sequence's rows, which are all there.
  void emit_dropped(int32_t sequence) {
    const ForestSequence& s = forest.sequences_[static_cast<size_t>(sequence)];
    if (!s.gate) return;
    std::vector<KvPart> parts = parts_of(s.gate->dropped, Take::kAll);
    for (KvPart& part : parts) {
      std::vector<int32_t>& starts = out.arrays.emplace_back();
      for (int32_t list = 0; list < forest.lists_; ++list) {
        starts.push_back(part.list_start(list) + style.dropped_shift);
      }
      part.starts = starts.data();
    }
    const int32_t row = out.row_of[static_cast<size_t>(sequence)];
    emit(row, row + s.rows, parts, true);
  }

  void emit_dropped_now_or_late(int32_t sequence) {
    if (style.shuffle && coin()) return late.push_back(sequence);
    emit_dropped(sequence);
  }

  void emit_tree(int32_t node) {
    const auto [begin, end] = row_span[static_cast<size_t>(node)];
    const int32_t below_it = own_end[static_cast<size_t>(node)];
    if (ends_inside_a_page(node) && below_it < end) {
      if (begin < below_it) emit(begin, below_it, parts_of(node, Take::kAll));
      emit(below_it, end, parts_of(node, Take::kFullPages));
    } else {
      emit(begin, end, parts_of(node, Take::kAll));
    }
    for (const int32_t sequence : order) {
      if (forest.sequences_[static_cast<size_t>(sequence)].node == node) {
        emit_dropped_now_or_late(sequence);
      }
    }
    std::vector<int32_t> children = forest.nodes_[static_cast<size_t>(node)].children;
    std::sort(children.begin(), children.end(), [&](int32_t a, int32_t b) {
      return row_span[static_cast<size_t>(a)] < row_span[static_cast<size_t>(b)];
    });
    for (const int32_t child : children) emit_tree(child);
  }

  void emit_sequence(int32_t sequence) {
    const ForestSequence& s = forest.sequences_[static_cast<size_t>(sequence)];
    std::vector<KvPart> parts;
    for (const int32_t node : forest.path(s.node)) {
      const Take take = node == s.node ? Take::kAll : Take::kFullPages;
      for (const KvPart& part : parts_of(node, take)) parts.push_back(part);
    }
    const int32_t row = out.row_of[static_cast<size_t>(sequence)];
    emit(row, row + s.rows, parts);
    emit_dropped_now_or_late(sequence);
  }

  // What each row sees.
  void bound_rows() {
    AttentionPlan& plan = out.plan;
    bool ragged = style.per_list_bounds, gated = false;
    for (const ForestSequence& s : forest.sequences_) {
      gated |= s.gate.has_value();
      for (int32_t list = 1; list < forest.lists_; ++list) {
        ragged |= forest.path_slots(s.node, list) != forest.path_slots(s.node, 0);
      }
    }
    ragged |= gated;
    const int32_t lists = ragged ? forest.lists_ : 1;
    plan.row_stride = ragged ? plan.rows : 0;
    plan.row_first.assign(static_cast<size_t>(lists) * static_cast<size_t>(plan.rows), 0);
    plan.row_last = plan.row_first;
    if (gated) plan.dropped_first = plan.dropped_last = plan.row_first;
    for (size_t i = 0; i < forest.sequences_.size(); ++i) {
      const ForestSequence& s = forest.sequences_[i];
      for (int32_t list = 0; list < lists; ++list) {
        const int32_t slots = forest.path_slots(s.node, list);
        for (int32_t r = 0; r < s.rows; ++r) {
          const auto at = static_cast<size_t>(list * plan.rows + out.row_of[i] + r);
          plan.row_last[at] = std::max(0, slots - s.rows + r + 1);
          if (!gated) continue;
          if (!s.gate) {
            plan.dropped_first[at] = plan.dropped_last[at] = below(100);  // none
            continue;
          }
          const auto from = static_cast<size_t>(list * s.rows + r);
          plan.row_last[at] = s.gate->last[from];
          plan.dropped_first[at] = s.gate->dropped_first[from] + style.dropped_shift;
          plan.dropped_last[at] = s.gate->dropped_last[from] + style.dropped_shift;
        }
      }
    }
  }
};

CasePlan Forest::plan(int32_t kv_heads, const PlanStyle& style, std::mt19937& random) const {
  CasePlan out;
  out.plan.kv_heads = kv_heads;
  out.row_of.resize(sequences_.size());
  Maker maker{*this, style, random, out, {}, {}, {}, {}};
  maker.row_span.resize(nodes_.size());
  maker.own_end.resize(nodes_.size());
  std::vector<int32_t> roots;
  for (size_t n = 0; n < nodes_.size(); ++n) {
    if (nodes_[n].parent < 0 && !nodes_[n].dropped) roots.push_back(static_cast<int32_t>(n));
  }
  maker.maybe_shuffle(roots);
  for (const int32_t root : roots) maker.place_rows(root);
  if (style.per_sequence) {
    for (const int32_t sequence : maker.order) maker.emit_sequence(sequence);
  } else {
    for (const int32_t root : roots) maker.emit_tree(root);
  }
  for (const int32_t sequence : maker.late) maker.emit_dropped(sequence);
  maker.bound_rows();
  return out;
}

}  // namespace coppice::ops
