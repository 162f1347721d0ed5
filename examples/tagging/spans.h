// Tags, the spans they stand for, and the metrics: accuracy over tokens, and F1 over spans, of
// which one is right only if its first token, its last and its type are.
//
// Thread: values and pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace detente::tagging {

// Stands in a row of tags where there is none: between two sentences, and where nothing is asked.
// It is LibTorch's ignore_index, so that no loss counts it.
inline constexpr std::int64_t kNoTag = -100;

// The tags of one task and their numbers, in the order in which they were first seen.
class TagSet {
  public:
    std::int64_t add(const std::string& tag);            // its number, a new one if need be
    std::int64_t number(const std::string& tag) const;   // Requires: it was added
    const std::string& name(std::int64_t number) const;  // Requires: 0 <= number < size()
    std::int64_t size() const { return static_cast<std::int64_t>(names_.size()); }

  private:
    friend std::vector<struct Span> spans_of(std::span<const std::int64_t>, const TagSet&);
    struct Parts {
        char kind;          // O, B or I
        std::int64_t type;  // of B-X and I-X the same number
    };
    std::map<std::string, std::int64_t> numbers_;
    std::map<std::string, std::int64_t> types_;
    std::vector<std::string> names_;
    std::vector<Parts> parts_;
};

struct Span {
    std::size_t begin = 0;
    std::size_t end = 0;  // one past its last token
    std::int64_t type = 0;
    auto operator<=>(const Span&) const = default;
};

// The spans of a row of tags. An I-X that continues no X begins a span (as conlleval reads it):
// what a net says is any row of tags, not only IOB2. kNoTag ends a span.
std::vector<Span> spans_of(std::span<const std::int64_t> tags, const TagSet& set);

// What is right among what counts, and how many tokens were asked. Both metrics are ratios of sums,
// so ratios of batches can be added: F1 is 2·TP / (2·TP + FP + FN).
struct Ratio {
    double hits = 0;
    double count = 0;
    double tokens = 0;
    Ratio& operator+=(const Ratio& other);
    double value() const;  // 0 if nothing counts
};

// Over tokens that have a gold tag. Where there is none, it does not matter what was said.
// Requires: `said` is as long as `gold`.
Ratio accuracy_of(std::span<const std::int64_t> said, std::span<const std::int64_t> gold);
Ratio f1_of(std::span<const std::int64_t> said, std::span<const std::int64_t> gold,
            const TagSet& set);

}  // namespace detente::tagging
