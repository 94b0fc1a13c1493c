#include <charconv>
#include <cstdio>
#include <string_view>

#include "kv/test_rig.h"

namespace {

template <class T>
bool read_flag(std::string_view argument, std::string_view name, T& value) {
  if (!argument.starts_with(name)) return false;
  argument.remove_prefix(name.size());
  const char* end = argument.data() + argument.size();
  const auto [rest, error] = std::from_chars(argument.data(), end, value);
  return error == std::errc() && rest == end;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  coppice::kv::Soak& soak = coppice::kv::soak();
  for (int i = 1; i < argc; ++i) {
    if (!read_flag(argv[i], "--ops=", soak.operations) &&
        !read_flag(argv[i], "--seed=", soak.seed)) {
      std::fprintf(stderr, "unknown argument '%s': --ops=N, --seed=N, --gtest_...\n", argv[i]);
      return 2;
    }
  }
  return RUN_ALL_TESTS();
}
