#include "eval/storefront.h"

#include <array>
#include <set>

#include "base/check.h"
#include "base/splitmix.h"

namespace coppice::storefront {
namespace {

// Words that share their pieces, so that about 700 merges make each of them one token.
constexpr std::array<std::string_view, 48> kAdjectives = {
    "red",   "blue",  "green", "oak",  "pine",  "tin",   "iron", "gold",  "silk", "wool",
    "jade",  "rose",  "big",   "old",  "new",   "tall",  "long", "round", "flat", "dark",
    "pale",  "warm",  "cold",  "soft", "plain", "deep",  "thin", "fine",  "rare", "good",
    "white", "black", "pink",  "grey", "brown", "teal",  "mint", "ruby",  "lace", "felt",
    "cork",  "bone",  "neat",  "wide", "late",  "sharp", "bold", "light"};
constexpr std::array<std::string_view, 96> kProducts = {
    "lamp",   "chair", "table", "bowl",  "cup",   "vase",  "clock", "rug",   "mat",   "bed",
    "box",    "pot",   "pan",   "jug",   "plate", "fork",  "spoon", "coat",  "hat",   "boot",
    "belt",   "bag",   "ring",  "watch", "comb",  "brush", "soap",  "frame", "drum",  "flute",
    "harp",   "horn",  "bell",  "kite",  "ball",  "doll",  "train", "boat",  "bike",  "sled",
    "tent",   "rope",  "net",   "axe",   "saw",   "drill", "nail",  "lock",  "key",   "torch",
    "map",    "globe", "book",  "pen",   "ink",   "card",  "shoe",  "sock",  "scarf", "glove",
    "tray",   "jar",   "stool", "mug",   "sofa",  "tile",  "brick", "broom", "mop",   "pail",
    "hose",   "spade", "rake",  "hoe",   "seed",  "tea",   "cake",  "pie",   "bread", "jam",
    "cheese", "wine",  "rice",  "salt",  "spice", "honey", "vest",  "dress", "robe",  "tie",
    "cap",    "purse", "pin",   "chain", "coin",  "stone"};
constexpr std::array<std::string_view, 12> kRooms = {"hall",  "room",  "bar",  "cafe",
                                                     "gate",  "yard",  "shop", "stall",
                                                     "booth", "store", "barn", "dock"};
constexpr std::array<std::string_view, 80> kNames = {
    "Ash",   "Bay",   "Bell",  "Bond",  "Cane",  "Cole", "Cork",  "Dale",  "Dean", "Dell",
    "Elm",   "Fern",  "Ford",  "Glen",  "Gold",  "Hale", "Hart",  "Hill",  "Holt", "Kent",
    "King",  "Lane",  "Lark",  "Lime",  "Mill",  "Moor", "Nash",  "Oak",   "Park", "Pine",
    "Pond",  "Rose",  "Rye",   "Sage",  "Star",  "Tide", "Vale",  "Wall",  "West", "Wolf",
    "Wood",  "York",  "Bath",  "Cove",  "Fair",  "Hope", "Iris",  "Reed",  "Bear", "Bird",
    "Blue",  "Bolt",  "Brook", "Cliff", "Coast", "Crow", "Dawn",  "Drake", "East", "Fall",
    "Field", "Finch", "Flint", "Fox",   "Gate",  "Gray", "Hawk",  "Heath", "Jade", "Lake",
    "Moon",  "North", "Port",  "Ridge", "Rock",  "Sand", "South", "Storm", "Swan", "Thorn"};

constexpr uint32_t kHeldOutOneIn = 8;

template <size_t N>
std::string_view pick(Random& random, const std::array<std::string_view, N>& from) {
  return from[random.below(N)];
}

std::string number(Random& random, uint32_t low, uint32_t high) {
  return std::to_string(low + random.below(high - low + 1));
}

Attribute draw_attribute(Random& random) {
  const uint32_t roll = random.below(10);
  if (roll < 4) return Attribute::kPrice;
  if (roll < 7) return Attribute::kPlace;
  if (roll < 9) return Attribute::kRule;
  return Attribute::kHours;
}

std::string_view verb(Attribute attribute) {
  switch (attribute) {
    case Attribute::kPrice:
      return " costs";
    case Attribute::kPlace:
      return " is at";
    case Attribute::kRule:
      return " needs form";
    case Attribute::kHours:
      return " opens";
  }
  CHECK(false);
}

std::string draw_value(Random& random, Attribute attribute) {
  switch (attribute) {
    case Attribute::kPrice:
      return number(random, 10, 99) + " euro " + number(random, 10, 99);
    case Attribute::kHours:
      return number(random, 10, 21) + " h " + number(random, 10, 59);
    case Attribute::kPlace:
    case Attribute::kRule:
      break;
  }
  return std::string(pick(random, kNames)) + " " + number(random, 10, 99);
}

std::string draw_subject(Random& random, Attribute attribute) {
  std::string subject(pick(random, kAdjectives));
  subject += ' ';
  subject += attribute == Attribute::kHours ? pick(random, kRooms) : pick(random, kProducts);
  return subject;
}

}  // namespace

uint64_t Random::next() { return splitmix(state_ += kGoldenGamma); }

uint32_t Random::below(uint32_t n) {
  CHECK(n >= 1);
  return static_cast<uint32_t>(((next() >> 32) * n) >> 32);
}

uint64_t hash_text(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325u;
  for (char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return Random(h).next();
}

Split split_of(std::string_view text) {
  return hash_text(text) % kHeldOutOneIn == 0 ? Split::kHeldOut : Split::kTrain;
}

WordLists word_lists() { return {kAdjectives, kProducts, kRooms, kNames}; }

double Random::uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

std::string_view attribute_name(Attribute attribute) {
  constexpr std::array<std::string_view, kAttributes> kNamesOf = {"price", "place", "rule",
                                                                  "hours"};
  return kNamesOf[static_cast<size_t>(attribute)];
}

std::string Fact::sentence() const { return "The " + key + " " + value + "."; }

Split Fact::split() const { return split_of(sentence()); }

std::string Shop::prompt() const {
  std::string text;
  for (const Fact& fact : facts_) {
    if (!text.empty()) text += ' ';
    text += fact.sentence();
  }
  return text + "\n";
}

std::vector<Question> Shop::questions() const {
  std::vector<Question> out;
  for (size_t i = 0; i < facts_.size(); ++i) {
    const Fact& fact = facts_[i];
    out.push_back({"The " + fact.key + "?", " " + fact.value, fact.attribute, static_cast<int>(i)});
  }
  Random random(hash_text("questions") ^ seed_);
  for (size_t i = out.size(); i > 1; --i) {
    std::swap(out[i - 1], out[random.below(static_cast<uint32_t>(i))]);
  }
  return out;
}

Shop make_shop(uint64_t seed, int n_facts, Split split) {
  CHECK(n_facts >= 0 && n_facts <= kMaxFacts);
  Random random(seed);
  std::vector<Fact> facts;
  std::vector<std::string> product_subjects;
  std::set<std::string> keys;
  while (static_cast<int>(facts.size()) < n_facts) {
    Fact fact;
    fact.attribute = draw_attribute(random);
    const bool again =
        fact.attribute != Attribute::kHours && !product_subjects.empty() && random.below(4) == 0;
    const std::string subject =
        again ? product_subjects[random.below(static_cast<uint32_t>(product_subjects.size()))]
              : draw_subject(random, fact.attribute);
    fact.key = subject + std::string(verb(fact.attribute));
    if (!keys.insert(fact.key).second) continue;
    if (fact.attribute != Attribute::kHours) product_subjects.push_back(subject);
    do {
      fact.value = draw_value(random, fact.attribute);
    } while (split != Split::kAny && fact.split() != split);
    facts.push_back(std::move(fact));
  }
  return Shop(seed, std::move(facts));
}

std::vector<std::string> words() {
  std::vector<std::string> out = {"The",  "costs", "is",   "at", "needs",
                                  "form", "opens", "euro", "h"};
  for (auto list : {std::vector<std::string_view>(kAdjectives.begin(), kAdjectives.end()),
                    std::vector<std::string_view>(kProducts.begin(), kProducts.end()),
                    std::vector<std::string_view>(kRooms.begin(), kRooms.end()),
                    std::vector<std::string_view>(kNames.begin(), kNames.end())}) {
    out.insert(out.end(), list.begin(), list.end());
  }
  for (int i = 10; i < 100; ++i) out.push_back(std::to_string(i));
  return out;
}

}  // namespace coppice::storefront
