// What the encoder sees of a word: the rows of one embedding table that are summed up for it. A
// word that training has twice or more, in small letters, has a row of its own; its beginning, its
// three ends and its shape share kBuckets rows by their hash, so that unknown words say something
// too.
//
// Thread: immutable once made.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "examples/tagging/corpus.h"

namespace detente::tagging {

class Lexicon {
  public:
    static constexpr std::size_t kFeatures = 6;
    static constexpr std::int64_t kBuckets = 4096;
    using Features = std::array<std::int64_t, kFeatures>;

    explicit Lexicon(const std::vector<Sentence>& training);
    std::int64_t rows() const { return first_bucket_ + kBuckets; }
    Features features(std::string_view word) const;

  private:
    std::unordered_map<std::string, std::int64_t> words_;  // to rows from 1 on; row 0: unknown
    std::int64_t first_bucket_ = 1;
};

// "Xx", "x", "X.d": runs of capitals X, small letters and other bytes of text x, digits d, the rest
// as it is; at most 8 long.
std::string shape_of(std::string_view word);

}  // namespace detente::tagging
