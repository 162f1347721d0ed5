#include "examples/tagging/spans.h"

#include <algorithm>

namespace detente::tagging {

std::int64_t TagSet::add(const std::string& tag) {
    const auto [at, is_new] = numbers_.try_emplace(tag, size());
    if (!is_new) return at->second;
    names_.push_back(tag);
    const bool spans = tag.starts_with("B-") || tag.starts_with("I-");
    const std::string type = spans ? tag.substr(2) : "";
    const auto count = static_cast<std::int64_t>(types_.size());
    parts_.push_back({spans ? tag.front() : 'O', types_.try_emplace(type, count).first->second});
    return at->second;
}

std::int64_t TagSet::number(const std::string& tag) const { return numbers_.at(tag); }

const std::string& TagSet::name(std::int64_t number) const {
    return names_.at(static_cast<std::size_t>(number));
}

std::vector<Span> spans_of(std::span<const std::int64_t> tags, const TagSet& set) {
    std::vector<Span> spans;
    bool open = false;
    for (std::size_t k = 0; k < tags.size(); ++k) {
        const TagSet::Parts tag =
            tags[k] < 0 ? TagSet::Parts{'O', 0} : set.parts_.at(static_cast<std::size_t>(tags[k]));
        if (open && tag.kind == 'I' && tag.type == spans.back().type) {
            spans.back().end = k + 1;
            continue;
        }
        open = tag.kind != 'O';
        if (open) spans.push_back({k, k + 1, tag.type});
    }
    return spans;
}

Ratio& Ratio::operator+=(const Ratio& other) {
    hits += other.hits;
    count += other.count;
    tokens += other.tokens;
    return *this;
}

double Ratio::value() const { return count == 0 ? 0 : hits / count; }

Ratio accuracy_of(std::span<const std::int64_t> said, std::span<const std::int64_t> gold) {
    Ratio ratio;
    for (std::size_t k = 0; k < gold.size(); ++k) {
        if (gold[k] == kNoTag) continue;
        ratio.hits += said[k] == gold[k] ? 1 : 0;
        ratio.count += 1;
    }
    ratio.tokens = ratio.count;
    return ratio;
}

Ratio f1_of(std::span<const std::int64_t> said, std::span<const std::int64_t> gold,
            const TagSet& set) {
    std::vector<std::int64_t> asked(said.begin(), said.end());
    Ratio ratio;
    for (std::size_t k = 0; k < gold.size(); ++k) {
        if (gold[k] == kNoTag) asked[k] = kNoTag;
        ratio.tokens += gold[k] == kNoTag ? 0 : 1;
    }
    const std::vector<Span> ours = spans_of(asked, set);
    const std::vector<Span> theirs = spans_of(gold, set);
    for (const Span& span : ours) {  // spans do not overlap, so both are in order
        ratio.hits += std::binary_search(theirs.begin(), theirs.end(), span) ? 2 : 0;
    }
    ratio.count = static_cast<double>(ours.size() + theirs.size());
    return ratio;
}

}  // namespace detente::tagging
