#include "eviction/kept_context.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "eviction/prompt_pass.h"

namespace coppice::eviction {
namespace {

int32_t pages_of(int32_t tokens, int32_t page_slots) {
  return (tokens + page_slots - 1) / page_slots;
}

int32_t argmax(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

double nats_of(std::span<const float> logits, int32_t token) {
  const double top = *std::ranges::max_element(logits);
  double total = 0;
  for (const float x : logits) total += std::exp(x - top);
  return top + std::log(total) - double{logits[static_cast<size_t>(token)]};
}

// A question under way: its part of every list begins on the last, partial page of what is kept.
struct KeptContext::Tail {
  const ops::PageId* pages = nullptr;   // [lists][tail stride]
  std::vector<int32_t> starts, counts;  // [lists]
  int32_t position = 0;                 // of its next token
};

Expected<std::unique_ptr<KeptContext>> KeptContext::create(
    model::Model& model, ops::Backend& backend, std::shared_ptr<QueryLog> log, DType kv_type,
    const model::ModelOptions& limits, const Room& room) {
  CHECK(room.context > 0 && room.beyond >= 0 && room.questions > 0 && room.tail > 0);
  std::unique_ptr<KeptContext> out(new KeptContext(model, std::move(log), limits, room));
  out->backend_ = &backend;
  TRY(out->arena_.layout, backend.kv_layout(kv_type, model.config().head_dim));
  const int32_t slots = out->page_slots();
  out->full_stride_ = pages_of(room.context + room.beyond, slots);
  out->kept_stride_ = pages_of(room.context, slots);
  out->tail_stride_ = pages_of(slots - 1 + room.tail, slots);
  const auto lists = static_cast<size_t>(out->lists());
  out->full_.resize(lists * static_cast<size_t>(out->full_stride_));
  out->kept_.resize(lists * static_cast<size_t>(out->kept_stride_));
  out->tails_.resize(lists * static_cast<size_t>(out->tail_stride_) *
                     static_cast<size_t>(room.questions));
  ops::PageId next = 0;
  for (auto* pages : {&out->full_, &out->kept_, &out->tails_}) {
    std::iota(pages->begin(), pages->end(), next);
    next += static_cast<ops::PageId>(pages->size());
  }
  TRY(out->memory_, backend.allocate(next * out->page_bytes()));
  out->arena_.base = out->memory_.data();
  std::vector<ops::PageId> all(static_cast<size_t>(next));
  std::iota(all.begin(), all.end(), 0);
  backend.zero_pages(out->arena_, all);
  out->kept_counts_.resize(lists);
  out->shared_counts_.resize(lists);
  return out;
}

TensorView KeptContext::run(std::span<const int32_t> tokens, std::span<const int32_t> positions,
                            std::span<const int32_t> logit_rows, const ops::AttentionPlan& plan) {
  return model_.forward({.tokens = tokens,
                         .positions = positions,
                         .owners = {},
                         .evaluated = {},
                         .logit_rows = logit_rows,
                         .plan = plan,
                         .arena = arena_});
}

// Rows after everything that was read, in slices; nobody asks for their logits.
void KeptContext::extend(std::span<const int32_t> tokens) {
  for (size_t done = 0; done < tokens.size();) {
    const size_t n = std::min(tokens.size() - done, static_cast<size_t>(limits_.max_rows));
    const auto rows = static_cast<int32_t>(n);
    ops::AttentionPlan plan;
    plan.rows = rows;
    plan.kv_heads = config().num_key_value_heads;
    plan.parts = {
        {.pages = full_.data(), .page_stride = full_stride_, .start = 0, .count = read_ + rows}};
    plan.segments = {{0, rows, 0, 1}};
    std::vector<int32_t> positions(n);
    std::iota(positions.begin(), positions.end(), read_);
    for (const int32_t position : positions) {
      plan.targets.push_back({0, position});
      plan.row_first.push_back(0);
      plan.row_last.push_back(position + 1);
    }
    // The last layer's queries are wanted too: a model leaves them out where nobody reads its rows.
    const std::vector<int32_t> logit_rows{rows - 1};
    run(tokens.subspan(done, n), positions, logit_rows, plan);
    read_ += rows;
    done += n;
  }
}

void KeptContext::read(std::span<const int32_t> tokens) {
  CHECK(!tokens.empty() && std::ssize(tokens) <= room_.context);
  log_->clear();
  log_->listen(true);
  read_ = 0;
  extend(tokens);
  log_->listen(false);
  context_ = read_;
  keep(KeepMask(lists(), context_, 1));
}

void KeptContext::read_beyond(std::span<const int32_t> tokens) {
  CHECK(std::ssize(tokens) <= room_.beyond);
  read_ = context_;
  log_->truncate(context_);
  log_->listen(true);
  extend(tokens);
  log_->listen(false);
}

void KeptContext::read_list(int32_t list, std::vector<float>& k, std::vector<float>& v) {
  const int64_t dim = config().head_dim;
  const int32_t slots = page_slots();
  k.resize(static_cast<size_t>(read_ * dim));
  v.resize(k.size());
  for (int32_t first = 0; first < read_; first += slots) {
    const int32_t n = std::min(slots, read_ - first);
    const Shape shape{n, dim};
    backend_->read_page(arena_, table(full_, full_stride_, list)[first / slots], n,
                        TensorView(k.data() + first * dim, DType::kF32, shape),
                        TensorView(v.data() + first * dim, DType::kF32, shape));
  }
}

void KeptContext::keep(const KeepMask& mask) {
  CHECK(mask.lists == lists() && mask.tokens == context_);
  const int32_t slots = page_slots();
  for (int32_t list = 0; list < mask.lists; ++list) {
    const auto flags = mask.list(list);
    const ops::PageId* from = table(full_, full_stride_, list);
    const ops::PageId* to = table(kept_, kept_stride_, list);
    int32_t end = 0;
    for (int32_t t = 0; t < context_;) {
      if (flags[static_cast<size_t>(t)] == 0) {
        ++t;
        continue;
      }
      // A run of kept slots within a page of both.
      int32_t n = 1;
      while (t + n < context_ && flags[static_cast<size_t>(t + n)] != 0 && (t + n) % slots != 0 &&
             (end + n) % slots != 0) {
        ++n;
      }
      backend_->copy_slots(arena_, from[t / slots], t % slots, to[end / slots], end % slots, n);
      t += n;
      end += n;
    }
    kept_counts_[static_cast<size_t>(list)] = end;
    shared_counts_[static_cast<size_t>(list)] = end / slots * slots;
  }
}

KeepMask KeptContext::read_gated(std::span<const int32_t> tokens, model::Gate& gate,
                                 const ops::GateRule& rule) {
  CHECK(std::ssize(tokens) <= std::min(room_.context, limits_.max_rows));
  // Both tables' pages of a list are its stock; afterwards they are dealt out anew.
  std::vector<ops::PageId> stock;
  for (int32_t list = 0; list < lists(); ++list) {
    stock.insert(stock.end(), table(kept_, kept_stride_, list),
                 table(kept_, kept_stride_, list) + kept_stride_);
    stock.insert(stock.end(), table(full_, full_stride_, list),
                 table(full_, full_stride_, list) + full_stride_);
  }
  PromptPass pass(config(), page_slots(), stock);
  pass.run(model_, gate, rule, tokens, arena_);
  log_->clear();
  context_ = read_ = static_cast<int32_t>(tokens.size());
  const int32_t slots = page_slots();
  for (int32_t list = 0; list < lists(); ++list) {
    int32_t end = pass.kept(list);
    // What is kept stays where it is; what is seen besides is copied behind it, on pages that the
    // step did not take.
    std::vector<ops::PageId> mine(pass.kept_pages(list).begin(),
                                  pass.kept_pages(list).begin() + pages_of(end, slots));
    std::vector<ops::PageId> others(
        pass.dropped_pages(list).begin(),
        pass.dropped_pages(list).begin() + pages_of(pass.last_seen(list), slots));
    const std::span<const ops::PageId> all(
        stock.data() + int64_t{list} * (kept_stride_ + full_stride_),
        static_cast<size_t>(kept_stride_ + full_stride_));
    for (const ops::PageId page : all.subspan(mine.size() + others.size())) {
      (std::ssize(mine) < kept_stride_ ? mine : others).push_back(page);
    }
    std::ranges::copy(mine, table(kept_, kept_stride_, list));
    std::ranges::copy(others, table(full_, full_stride_, list));
    for (int32_t from = pass.first_seen(list); from < pass.last_seen(list); ++from, ++end) {
      backend_->copy_slots(arena_, pass.dropped_pages(list)[static_cast<size_t>(from / slots)],
                           from % slots, mine[static_cast<size_t>(end / slots)], end % slots, 1);
    }
    kept_counts_[static_cast<size_t>(list)] = end;
    shared_counts_[static_cast<size_t>(list)] = end / slots * slots;
  }
  return pass.mask();
}

KeptContext::Tail KeptContext::begin_tail(int32_t which) const {
  const int32_t slots = page_slots();
  Tail tail;
  tail.pages = tails_.data() + int64_t{which} * lists() * tail_stride_;
  tail.starts = shared_counts_;
  tail.position = context_;
  for (int32_t list = 0; list < lists(); ++list) {
    const int32_t end = kept_counts_[static_cast<size_t>(list)];
    const int32_t rest = end % slots;
    tail.counts.push_back(rest);
    if (rest == 0) continue;
    backend_->copy_slots(arena_, kept_[static_cast<size_t>(list * kept_stride_ + end / slots)], 0,
                         tail.pages[int64_t{list} * tail_stride_], 0, rest);
  }
  return tail;
}

// The next tokens of each tail, as one step. Logits [R, V], valid until the next one.
TensorView KeptContext::step(std::span<Tail* const> tails,
                             std::span<const std::span<const int32_t>> rows,
                             std::span<const int32_t> logit_rows) {
  ops::AttentionPlan plan;
  plan.kv_heads = config().num_key_value_heads;
  std::vector<int32_t> tokens, positions;
  for (const auto& more : rows) tokens.insert(tokens.end(), more.begin(), more.end());
  plan.rows = plan.row_stride = plan.target_stride = static_cast<int32_t>(tokens.size());
  CHECK(plan.rows <= limits_.max_rows);
  const auto stride = static_cast<size_t>(plan.rows);
  plan.targets.resize(stride * static_cast<size_t>(lists()));
  plan.row_first.assign(plan.targets.size(), 0);
  plan.row_last.resize(plan.targets.size());
  // Where no list fills a page, nothing is shared.
  if (*std::ranges::max_element(shared_counts_) > 0) {
    plan.parts.push_back(
        {.pages = kept_.data(), .page_stride = kept_stride_, .counts = shared_counts_.data()});
    plan.segments.push_back({0, plan.rows, 0, 1});
  }
  int32_t row = 0;
  for (size_t i = 0; i < tails.size(); ++i) {
    Tail& tail = *tails[i];
    const auto n = static_cast<int32_t>(rows[i].size());
    const auto part = static_cast<int32_t>(plan.parts.size());
    CHECK(tail.position - context_ + n <= room_.tail);
    for (size_t list = 0; list < tail.counts.size(); ++list) {
      const int32_t end = tail.starts[list] + tail.counts[list];
      for (int32_t j = 0; j < n; ++j) {
        const size_t at = list * stride + static_cast<size_t>(row + j);
        plan.targets[at] = {part, end + j};
        plan.row_last[at] = end + j + 1;
      }
      tail.counts[list] += n;
    }
    plan.parts.push_back({.pages = tail.pages,
                          .page_stride = tail_stride_,
                          .starts = tail.starts.data(),
                          .counts = tail.counts.data()});
    plan.segments.push_back({row, row + n, part, part + 1});
    for (int32_t j = 0; j < n; ++j) positions.push_back(tail.position++);
    row += n;
  }
  return run(tokens, positions, logit_rows, plan);
}

std::vector<std::vector<int32_t>> KeptContext::answer(std::span<const Question> questions,
                                                      std::span<const int32_t> stops) {
  std::vector<std::vector<int32_t>> answers(questions.size());
  const int32_t most = std::min(room_.questions, limits_.max_logit_rows);
  for (size_t begin = 0; begin < questions.size();) {
    size_t end = begin;
    for (int64_t rows = 0; end < questions.size() && static_cast<int32_t>(end - begin) < most;
         ++end) {
      rows += std::ssize(questions[end].tokens);
      if (rows > limits_.max_rows && end > begin) break;
    }
    answer_group(questions.subspan(begin, end - begin), stops,
                 std::span(answers).subspan(begin, end - begin));
    begin = end;
  }
  return answers;
}

void KeptContext::answer_group(std::span<const Question> questions, std::span<const int32_t> stops,
                               std::span<std::vector<int32_t>> answers) {
  std::vector<Tail> tails;
  for (size_t i = 0; i < questions.size(); ++i)
    tails.push_back(begin_tail(static_cast<int32_t>(i)));
  std::vector<size_t> open;
  std::vector<int32_t> last(questions.size());
  for (size_t i = 0; i < questions.size(); ++i) {
    CHECK(!questions[i].tokens.empty());
    if (questions[i].most > 0) open.push_back(i);
  }
  for (bool first = true; !open.empty(); first = false) {
    std::vector<Tail*> going;
    std::vector<std::span<const int32_t>> rows;
    std::vector<int32_t> logit_rows;
    int32_t row = 0;
    for (const size_t i : open) {
      going.push_back(&tails[i]);
      rows.push_back(first ? std::span<const int32_t>(questions[i].tokens)
                           : std::span<const int32_t>(&last[i], 1));
      row += static_cast<int32_t>(rows.back().size());
      logit_rows.push_back(row - 1);
    }
    const TensorView logits = step(going, rows, logit_rows);
    const auto vocab = static_cast<size_t>(config().vocab_size);
    std::vector<size_t> still;
    for (size_t j = 0; j < open.size(); ++j) {
      const size_t i = open[j];
      last[i] = argmax({logits.f32() + j * vocab, vocab});
      if (std::ranges::find(stops, last[i]) != stops.end()) continue;
      answers[i].push_back(last[i]);
      if (std::ssize(answers[i]) < questions[i].most) still.push_back(i);
    }
    open = std::move(still);
  }
}

double KeptContext::nats(std::span<const int32_t> tokens) {
  CHECK(tokens.size() >= 2);
  Tail tail = begin_tail(0);
  const auto vocab = static_cast<size_t>(config().vocab_size);
  const auto most = static_cast<size_t>(std::min(limits_.max_rows, limits_.max_logit_rows));
  double sum = 0;
  const size_t rows = tokens.size() - 1;
  for (size_t done = 0; done < rows;) {
    const size_t n = std::min(most, rows - done);
    std::vector<int32_t> logit_rows(n);
    std::iota(logit_rows.begin(), logit_rows.end(), 0);
    Tail* const tails[] = {&tail};
    const std::span<const int32_t> slices[] = {tokens.subspan(done, n)};
    const TensorView logits = step(tails, slices, logit_rows);
    for (size_t i = 0; i < n; ++i) {
      const std::span<const float> row(logits.f32() + i * vocab, vocab);
      sum += nats_of(row, tokens[done + i + 1]);
    }
    done += n;
  }
  return sum / static_cast<double>(rows);
}

}  // namespace coppice::eviction
