// What:    (tests) two files that say the same of a model.
// Owns:    nothing.
// Threads: any.
// Fails:   as gtest expectations.
#pragma once

#include <gtest/gtest.h>

#include "model/config.h"

namespace coppice::model {

// GGUF stores floats, so what is real agrees to their precision; special ids are not compared.
inline void expect_same_config(const ModelConfig& a, const ModelConfig& b) {
  EXPECT_EQ(a.architecture, b.architecture);
  EXPECT_EQ(a.hidden_size, b.hidden_size);
  EXPECT_EQ(a.intermediate_size, b.intermediate_size);
  EXPECT_EQ(a.num_hidden_layers, b.num_hidden_layers);
  EXPECT_EQ(a.num_attention_heads, b.num_attention_heads);
  EXPECT_EQ(a.num_key_value_heads, b.num_key_value_heads);
  EXPECT_EQ(a.head_dim, b.head_dim);
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.max_position_embeddings, b.max_position_embeddings);
  EXPECT_EQ(static_cast<float>(a.rms_norm_eps), static_cast<float>(b.rms_norm_eps));
  EXPECT_EQ(a.rope_theta, b.rope_theta);
  ASSERT_EQ(a.rope_inv_freq.size(), b.rope_inv_freq.size());
  for (size_t i = 0; i < a.rope_inv_freq.size(); ++i) {
    EXPECT_NEAR(a.rope_inv_freq[i] / b.rope_inv_freq[i], 1.0f, 2e-7f) << i;
  }
  EXPECT_EQ(a.tie_word_embeddings, b.tie_word_embeddings);
  EXPECT_EQ(a.attention_bias, b.attention_bias);
  EXPECT_EQ(a.attention_output_bias, b.attention_output_bias);
  EXPECT_EQ(a.qk_norm, b.qk_norm);
}

}  // namespace coppice::model
