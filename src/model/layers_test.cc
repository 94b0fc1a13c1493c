#include "model/layers.h"

#include <gtest/gtest.h>

#include <array>

namespace coppice::model {
namespace {

// LlamaRotaryEmbedding of transformers 5.23.0: head_dim 8, theta 500000. At position 130925 the
// angle's rounding to f32 moves the second cosine by 1.5e-4.
TEST(RotaryAngles, AreThoseOfTransformers) {
  constexpr std::array<int32_t, 4> kPositions = {0, 1, 4097, 130925};
  constexpr std::array<float, 4> kInvFreq = {1.0f, 0.0376060307f, 0.00141421345f, 5.31829573e-05f};
  constexpr std::array<float, 16> kCos = {1.00000000f,  1.00000000f,  1.00000000f,  1.00000000f,  //
                                          0.54030234f,  0.99929297f,  0.99999899f,  1.00000000f,  //
                                          0.93477196f,  -0.99105215f, 0.88273126f,  0.97635561f,  //
                                          -0.64188802f, -0.76891893f, -0.98044866f, 0.77770251f};
  constexpr std::array<float, 16> kSin = {0.00000000f, 0.00000000f,  0.00000000f,  0.00000000f,  //
                                          0.84147096f, 0.03759717f,  0.00141421f,  0.00005318f,  //
                                          0.35524833f, -0.13347511f, -0.46987814f, 0.21617056f,  //
                                          0.76679838f, -0.63934624f, 0.19677499f,  0.62863249f};
  std::array<float, 16> cos{}, sin{};
  rotary_angles(kPositions, kInvFreq, {cos.data(), DType::kF32, {4, 4}},
                {sin.data(), DType::kF32, {4, 4}});
  for (size_t i = 0; i < cos.size(); ++i) {
    EXPECT_NEAR(cos[i], kCos[i], 2e-7) << i;
    EXPECT_NEAR(sin[i], kSin[i], 2e-7) << i;
  }
}

}  // namespace
}  // namespace coppice::model
