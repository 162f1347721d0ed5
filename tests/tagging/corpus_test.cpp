#include "examples/tagging/corpus.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/tagging/made_corpus.h"

namespace detente::tagging {
namespace {

using test::line_of;
using test::MadeFolder;

// The refusal of a training file that holds `text`. Every one begins with the file, and its line
// where there is one, and says what to do.
std::string refusal(const std::string& text) {
    const MadeFolder folder;
    folder.write("train", text);
    const auto read = read_corpus(folder.path(), "dev");
    REQUIRE_FALSE(read.has_value());
    CHECK(read.error().code == ErrorCode::bad_dataset);
    const std::string& said = read.error().text;
    CHECK_THAT(said, Catch::StartsWith(folder.file("train")) && Catch::Contains("fetch_ewt"));
    return said.substr(folder.file("train").size());
}

const std::string kGood = line_of({"Ann", "PROPN", "B-PER", "B-ARG0"});

TEST_CASE("corpus: sentences come as they are written and comments are passed over") {
    const MadeFolder folder;
    folder.write("dev", "# a comment\n# another\n#\tSYM\tNFP\tO\tO\tdep\t-\t-\n\n\n" + kGood +
                            line_of({"ran", "VERB", "O", "B-V"}) + "\n");
    const auto read = read_corpus(folder.path(), "dev");
    if (!read) FAIL(read.error().text);
    CHECK(read->training.size() == 42);
    REQUIRE(read->scored.size() == 2);
    CHECK(read->scored[0].words == std::vector<std::string>{"#"});
    CHECK(read->scored[0].predicate == -1);
    const Sentence& second = read->scored[1];
    CHECK(second.words == std::vector<std::string>{"Ann", "ran"});
    CHECK(second.pos == std::vector<std::string>{"PROPN", "VERB"});
    CHECK(second.ner == std::vector<std::string>{"B-PER", "O"});
    CHECK(second.roles == std::vector<std::string>{"B-ARG0", "B-V"});
    CHECK(second.predicate == 1);
}

TEST_CASE("corpus: a malformed line is refused with the file and the line's number") {
    using Catch::Contains;
    using Catch::StartsWith;
    CHECK_THAT(refusal("# c\n" + kGood + "ran\tVERB\tVB\tO\n\n"),
               StartsWith(":3: expected 8 columns parted by tabs, found 4"));
    CHECK_THAT(refusal("no columns\n"), StartsWith(":1: expected 8 columns"));
    CHECK_THAT(refusal(line_of({"Ann", "PROPN", "PER", "O"}) + "\n"),
               StartsWith(":1: NER: expected O, B-… or I-…, found \"PER\""));
    CHECK_THAT(refusal(line_of({"Ann", "PROPN", "B-", "O"}) + "\n"), StartsWith(":1: NER:"));
    CHECK_THAT(refusal(kGood + line_of({"Lee", "PROPN", "I-LOC", "O"}) + "\n"),
               StartsWith(":2: NER: \"I-LOC\" continues nothing, since \"B-PER\" is before it"));
    // A sentence begins anew: nothing is continued from the one before.
    CHECK_THAT(refusal(kGood + "\n" + line_of({"Lee", "PROPN", "O", "I-ARG0"}) + "\n"),
               StartsWith(":3: SRL: \"I-ARG0\" continues nothing"));
    const std::string verb = line_of({"ran", "VERB", "O", "B-V"});
    CHECK_THAT(refusal(verb + kGood + verb + "\n"), StartsWith(":3: a second predicate"));
    CHECK_THAT(refusal(line_of({"", "VERB", "O", "O"}) + "\n"), StartsWith(":1: its word"));
}

TEST_CASE("corpus: a file that is cut off or damaged or missing or empty is refused") {
    using Catch::StartsWith;
    CHECK_THAT(refusal(kGood + "\n" + kGood), StartsWith(":3: expected an empty line after the"));
    CHECK_THAT(refusal("# only a comment\n"), StartsWith(": holds no sentence"));
    CHECK_THAT(refusal(""), StartsWith(": holds no sentence"));

    const MadeFolder folder;
    const std::string whole = bytes_of_file(folder.file("train"));
    for (std::size_t kept = 1; kept < whole.size(); kept += 7) {
        write_file(folder.file("train"), whole.substr(0, kept));
        const auto read = read_corpus(folder.path(), "dev");
        REQUIRE_FALSE(read.has_value());
        CHECK_THAT(read.error().text, StartsWith(folder.file("train")));
    }
    std::string altered = whole;
    altered[altered.size() - 6] ^= 1;  // the checksum
    write_file(folder.file("train"), altered);
    CHECK_THAT(read_corpus(folder.path(), "dev").error().text,
               StartsWith(folder.file("train") + ": the file is damaged"));

    std::filesystem::remove(folder.file("train"));
    CHECK_THAT(read_corpus(folder.path(), "dev").error().text,
               StartsWith(folder.file("train") + ": no such file"));
    CHECK_THAT(read_corpus("", "dev").error().text, StartsWith("data.dir: expected the folder"));
}

}  // namespace
}  // namespace detente::tagging
