// The three tasks over one sentence, as numbers: named entities, parts of speech, and the arguments
// of a predicate that is given. And the plainest answer to each: for every word the tag it had most
// often in training.
//
// Thread: values and pure functions.
#pragma once

#include <array>
#include <unordered_map>

#include "examples/tagging/corpus.h"
#include "examples/tagging/spans.h"

namespace detente::tagging {

enum TaskNumber : std::size_t { kNer, kPos, kSrl, kTasks };
inline constexpr std::array<const char*, kTasks> kTaskNames{"ner", "pos", "srl"};
inline constexpr std::array<const char*, kTasks> kMetricNames{"F1 of entities", "accuracy",
                                                              "F1 of arguments"};

using TagSets = std::array<TagSet, kTasks>;
using Tags = std::array<std::vector<std::int64_t>, kTasks>;  // per task one per token

// The tags of a sentence, new ones added to `sets`. SRL asks nothing of a sentence without a
// predicate, nor at the predicate, which is given (kNoTag); what else belongs to it (I-V) is O.
Tags tags_of(const Sentence& sentence, TagSets& sets);

// The task's metric: accuracy of parts of speech, F1 of the others.
Ratio score_of(std::size_t task, std::span<const std::int64_t> said,
               std::span<const std::int64_t> gold, const TagSet& set);

// Says of each word the tag it had most often in training; of an unknown one, and of all if
// `by_word` is false, the most frequent of all. Of equally frequent ones the one first seen.
class MostFrequent {
  public:
    explicit MostFrequent(bool by_word) : by_word_(by_word) {}
    void learn(const std::vector<std::string>& words, const std::vector<std::int64_t>& tags);
    std::vector<std::int64_t> say(const std::vector<std::string>& words) const;

  private:
    class Counts {
      public:
        void add(std::int64_t tag);
        std::int64_t top() const;  // Requires: something was added

      private:
        std::vector<std::int64_t> of_tag_;
        std::vector<std::int64_t> seen_;  // the tags in the order in which they came
    };
    bool by_word_;
    Counts all_;
    std::unordered_map<std::string, Counts> of_word_;
};

}  // namespace detente::tagging
