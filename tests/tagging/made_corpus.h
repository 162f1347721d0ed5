// Small made files in the form of the treebank's, for a test to read, and to spoil.
#pragma once

#include <zlib.h>

#include <string>
#include <utility>
#include <vector>

#include "common/invariant.h"
#include "tests/temporary_folder.h"

namespace detente::tagging::test {

struct Token {
    std::string word, pos, ner, role;
};

// One token's line; the columns that are not read are filled in.
inline std::string line_of(const Token& token) {
    return token.word + "\t" + token.pos + "\tXX\t" + token.ner + "\t" + token.role +
           "\tdep\t-\t-\n";
}

inline std::string text_of(const std::vector<std::vector<Token>>& sentences) {
    std::string text = "# made for a test\n";
    for (const auto& sentence : sentences) {
        for (const Token& token : sentence) text += line_of(token);
        text += "\n";
    }
    return text;
}

inline void write_gz(const std::string& path, const std::string& text) {
    const gzFile file = gzopen(path.c_str(), "wb");
    invariant(file != nullptr, "tests can write a compressed file");
    gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
    gzclose(file);
}

// Who does what to whom, and where, over a handful of names and verbs: all three tasks can be told
// from it without error.
inline std::vector<std::vector<Token>> made_sentences() {
    const std::vector<std::string> people{"Ann", "Bo", "Cy", "Di"};
    const std::vector<std::string> places{"Rome", "Oslo", "Kyiv"};
    const std::vector<std::string> verbs{"saw", "met", "drew"};
    std::vector<std::vector<Token>> sentences;
    for (std::size_t k = 0; k < 36; ++k) {
        sentences.push_back({{people[k % 4], "PROPN", "B-PER", "B-ARG0"},
                             {verbs[k % 3], "VERB", "O", "B-V"},
                             {"the", "DET", "O", "B-ARG1"},
                             {k % 2 == 0 ? "dog" : "tree", "NOUN", "O", "I-ARG1"},
                             {"in", "ADP", "O", "B-ARGM-LOC"},
                             {places[(k / 3) % 3], "PROPN", "B-LOC", "I-ARGM-LOC"},
                             {".", "PUNCT", "O", "O"}});
        if (k % 6 == 0) sentences.push_back({{"#", "SYM", "O", "O"}, {"Yes", "INTJ", "O", "O"}});
    }
    return sentences;
}

// A folder with both files.
class MadeFolder : public TemporaryFolder {
  public:
    MadeFolder() {
        for (const char* split : {"train", "dev"}) write(split, text_of(made_sentences()));
    }
    std::string file(const std::string& split) const {
        return *this / ("ewt." + split + ".tsv.gz");
    }
    void write(const std::string& split, const std::string& text) const {
        write_gz(file(split), text);
    }
};

}  // namespace detente::tagging::test
