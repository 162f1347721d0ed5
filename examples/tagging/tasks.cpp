#include "examples/tagging/tasks.h"

namespace detente::tagging {

namespace {

std::int64_t role_of(const Sentence& sentence, std::size_t k, TagSet& set) {
    if (sentence.predicate < 0 || k == static_cast<std::size_t>(sentence.predicate)) return kNoTag;
    const std::string& tag = sentence.roles[k];
    return set.add(tag == "I-V" ? "O" : tag);
}

}  // namespace

Tags tags_of(const Sentence& sentence, TagSets& sets) {
    Tags tags;
    for (std::size_t k = 0; k < sentence.size(); ++k) {
        tags[kNer].push_back(sets[kNer].add(sentence.ner[k]));
        tags[kPos].push_back(sets[kPos].add(sentence.pos[k]));
        tags[kSrl].push_back(role_of(sentence, k, sets[kSrl]));
    }
    return tags;
}

Ratio score_of(std::size_t task, std::span<const std::int64_t> said,
               std::span<const std::int64_t> gold, const TagSet& set) {
    return task == kPos ? accuracy_of(said, gold) : f1_of(said, gold, set);
}

void MostFrequent::Counts::add(std::int64_t tag) {
    const auto at = static_cast<std::size_t>(tag);
    if (at >= of_tag_.size()) of_tag_.resize(at + 1);
    if (of_tag_[at]++ == 0) seen_.push_back(tag);
}

std::int64_t MostFrequent::Counts::top() const {
    std::int64_t best = seen_.front();
    for (const std::int64_t tag : seen_) {
        if (of_tag_[static_cast<std::size_t>(tag)] > of_tag_[static_cast<std::size_t>(best)]) {
            best = tag;
        }
    }
    return best;
}

void MostFrequent::learn(const std::vector<std::string>& words,
                         const std::vector<std::int64_t>& tags) {
    for (std::size_t k = 0; k < words.size(); ++k) {
        if (tags[k] == kNoTag) continue;
        all_.add(tags[k]);
        if (by_word_) of_word_[words[k]].add(tags[k]);
    }
}

std::vector<std::int64_t> MostFrequent::say(const std::vector<std::string>& words) const {
    std::vector<std::int64_t> said;
    const std::int64_t of_all = all_.top();
    for (const std::string& word : words) {
        const auto found = of_word_.find(word);
        said.push_back(found == of_word_.end() ? of_all : found->second.top());
    }
    return said;
}

}  // namespace detente::tagging
