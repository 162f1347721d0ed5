// Reads annotated sentences: gzipped text, a token a line with eight columns parted by tabs, an
// empty line after each sentence (README.md in this folder says what the columns are and
// fetch_ewt makes the files). Comment lines begin with "# " and have no tab.
//
// Knows no LibTorch. Thread: pure functions.
#pragma once

#include <string>
#include <vector>

#include "common/result.h"

namespace detente::tagging {

// The columns that are used, token by token.
struct Sentence {
    std::vector<std::string> words;
    std::vector<std::string> pos;    // one of 17 parts of speech
    std::vector<std::string> ner;    // IOB2: O, B-PER, I-PER …
    std::vector<std::string> roles;  // IOB2: the arguments of one predicate; itself B-V, I-V
    int predicate = -1;              // where B-V is; -1: the sentence has none
    std::size_t size() const { return words.size(); }
};

// bad_dataset: a file that is missing, damaged or cut off; a line with other than eight columns or
// with tags that are not IOB2; a second predicate. The text names file and line.
Result<std::vector<Sentence>> read_sentences(const std::string& path);

struct Corpus {
    std::vector<Sentence> training;
    std::vector<Sentence> scored;
};
// Reads DIR/ewt.train.tsv.gz and DIR/ewt.SPLIT.tsv.gz, SPLIT being what is scored: dev or test.
Result<Corpus> read_corpus(const std::string& dir, const std::string& split);

}  // namespace detente::tagging
