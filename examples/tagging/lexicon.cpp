#include "examples/tagging/lexicon.h"

#include <algorithm>

#include "common/random.h"

namespace detente::tagging {

namespace {

constexpr std::size_t kLongestShape = 8;
constexpr int kLeastOften = 2;

bool is_capital(char c) { return c >= 'A' && c <= 'Z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
// Bytes of UTF-8 beyond ASCII are letters of some script nearly always.
bool is_small(char c) { return (c >= 'a' && c <= 'z') || static_cast<unsigned char>(c) >= 0x80; }

std::string small(std::string_view word) {
    std::string text(word);
    for (char& c : text) {
        if (is_capital(c)) c = static_cast<char>(c - 'A' + 'a');
    }
    return text;
}

std::int64_t bucket(char kind, std::string_view text) {
    std::uint64_t key = scatter(static_cast<unsigned char>(kind));
    for (const char c : text) key = scatter(key ^ static_cast<unsigned char>(c));
    return static_cast<std::int64_t>(key % static_cast<std::uint64_t>(Lexicon::kBuckets));
}

}  // namespace

std::string shape_of(std::string_view word) {
    std::string shape;
    for (const char c : word) {
        const char kind = is_capital(c) ? 'X' : is_digit(c) ? 'd' : is_small(c) ? 'x' : c;
        if (!shape.empty() && shape.back() == kind) continue;
        if (shape.size() == kLongestShape) break;
        shape += kind;
    }
    return shape;
}

Lexicon::Lexicon(const std::vector<Sentence>& training) {
    std::unordered_map<std::string, int> often;
    for (const Sentence& sentence : training) {
        for (const std::string& word : sentence.words) {
            std::string text = small(word);
            if (++often[text] == kLeastOften) words_.emplace(std::move(text), first_bucket_++);
        }
    }
}

Lexicon::Features Lexicon::features(std::string_view word) const {
    const std::string text = small(word);
    const std::string_view all = text;
    const auto known = words_.find(text);
    const auto end = [all](std::size_t n) {
        return all.substr(all.size() - std::min(n, all.size()));
    };
    return {
        known == words_.end() ? 0 : known->second, first_bucket_ + bucket('p', all.substr(0, 3)),
        first_bucket_ + bucket('1', end(1)),       first_bucket_ + bucket('2', end(2)),
        first_bucket_ + bucket('3', end(3)),       first_bucket_ + bucket('s', shape_of(word))};
}

}  // namespace detente::tagging
