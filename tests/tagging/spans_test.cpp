#include "examples/tagging/spans.h"

#include <catch2/catch.hpp>
#include <set>
#include <tuple>

#include "common/random.h"
#include "examples/tagging/tasks.h"

namespace detente::tagging {
namespace {

using Row = std::vector<std::int64_t>;

// "-" is no tag; otherwise tags parted by spaces, added to `set`.
Row row_of(const std::string& text, TagSet& set) {
    Row row;
    std::size_t at = 0;
    while (at < text.size()) {
        const std::size_t end = std::min(text.find(' ', at), text.size());
        const std::string tag = text.substr(at, end - at);
        row.push_back(tag == "-" ? kNoTag : set.add(tag));
        at = end + 1;
    }
    return row;
}

// begin, end and type of each span as text.
std::string spans_in(const std::string& text) {
    TagSet set;
    const Row row = row_of(text, set);
    const std::int64_t x = set.size() > 0 ? spans_of(Row{set.add("B-X")}, set).front().type : 0;
    std::string said;
    for (const Span& span : spans_of(row, set)) {
        said += std::to_string(span.begin) + ".." + std::to_string(span.end) +
                (span.type == x ? "X " : "Y ");
    }
    return said;
}

TEST_CASE("spans: IOB2 is read as it says") {
    CHECK(spans_in("O O").empty());
    CHECK(spans_in("B-X I-X O B-Y") == "0..2X 3..4Y ");
    CHECK(spans_in("B-X B-X I-X") == "0..1X 1..3X ");  // neighbours of one type
    CHECK(spans_in("O B-X") == "1..2X ");              // up to the end
}

TEST_CASE("spans: what is no IOB2 is read as conlleval does and no tag ends a span") {
    CHECK(spans_in("O I-X I-X O") == "1..3X ");
    CHECK(spans_in("B-X I-Y I-Y") == "0..1X 1..3Y ");
    CHECK(spans_in("I-Y B-X I-Y") == "0..1Y 1..2X 2..3Y ");
    CHECK(spans_in("B-X - I-X") == "0..1X 2..3X ");
    CHECK(spans_in("-").empty());
}

Ratio f1(const std::string& said, const std::string& gold) {
    TagSet set;
    const Row ours = row_of(said, set);
    const Row theirs = row_of(gold, set);
    return f1_of(ours, theirs, set);
}

TEST_CASE("scores: F1 of cases counted by hand") {
    CHECK(f1("B-X I-X O B-Y", "B-X I-X O B-Y").value() == 1);
    CHECK(f1("O O O", "B-X I-X O").value() == 0);
    CHECK(f1("O O", "O O").value() == 0);
    CHECK(f1("B-X O O", "B-X I-X O").value() == 0);    // its end is wrong
    CHECK(f1("B-Y I-Y O", "B-X I-X O").value() == 0);  // its type is
    // Right 1 of 3 said and of 2 asked for: precision 1/3 and recall 1/2.
    const Ratio ratio = f1("B-X O B-Y B-X O", "B-X O B-X I-X O");
    CHECK(ratio.value() == Approx(2 * (1. / 3) * (1. / 2) / (1. / 3 + 1. / 2)));
    CHECK(ratio.hits == 2);
    CHECK(ratio.count == 5);
    CHECK(ratio.tokens == 5);
}

TEST_CASE("scores: what is said where nothing is asked counts in neither metric") {
    const Ratio ratio = f1("B-X I-X B-Y I-Y", "B-X - - B-Y");
    CHECK(ratio.hits == 4);  // said there: X, nothing, nothing, I-Y, which begins a span
    CHECK(ratio.count == 4);
    CHECK(ratio.tokens == 2);
    const Ratio accuracy = accuracy_of(Row{1, 2, 3, 4}, Row{1, kNoTag, 2, 4});
    CHECK(accuracy.hits == 2);
    CHECK(accuracy.count == 3);
    CHECK(accuracy.tokens == 3);
}

// F1 the slow way: sets of spans found by looking at every pair of ends.
double slow_f1(const std::vector<std::string>& said, const std::vector<std::string>& gold) {
    using Spans = std::set<std::tuple<std::size_t, std::size_t, std::string>>;
    const auto spans = [](const std::vector<std::string>& tags) {
        Spans all;
        for (std::size_t begin = 0; begin < tags.size(); ++begin) {
            if (tags[begin] == "O") continue;
            const std::string type = tags[begin].substr(2);
            const bool continues = tags[begin][0] == 'I' && begin > 0 && tags[begin - 1] != "O" &&
                                   tags[begin - 1].substr(2) == type;
            if (continues) continue;
            std::size_t end = begin + 1;
            while (end < tags.size() && tags[end] == "I-" + type) ++end;
            all.insert({begin, end, type});
        }
        return all;
    };
    const Spans ours = spans(said);
    const Spans theirs = spans(gold);
    double tp = 0;
    for (const auto& span : ours) tp += theirs.contains(span) ? 1 : 0;
    const double precision = ours.empty() ? 0 : tp / static_cast<double>(ours.size());
    const double recall = theirs.empty() ? 0 : tp / static_cast<double>(theirs.size());
    return precision + recall == 0 ? 0 : 2 * precision * recall / (precision + recall);
}

TEST_CASE("scores: F1 of random rows is that of a slow reckoning by precision and recall") {
    const std::vector<std::string> tags{"O", "B-X", "I-X", "B-Y", "I-Y"};
    Random random(random_key(7, Purpose::test));
    for (int trial = 0; trial < 2000; ++trial) {
        std::vector<std::string> said;
        std::vector<std::string> gold;
        TagSet set;
        Row ours;
        Row theirs;
        for (std::uint64_t k = random.below(12); k > 0; --k) {
            gold.push_back(tags[random.below(tags.size())]);
            said.push_back(random.below(3) > 0 ? gold.back() : tags[random.below(tags.size())]);
            theirs.push_back(set.add(gold.back()));
            ours.push_back(set.add(said.back()));
        }
        REQUIRE(f1_of(ours, theirs, set).value() == Approx(slow_f1(said, gold)));
    }
}

TEST_CASE("scores: batches added up score what all at once do") {
    TagSet set;
    const Row said = row_of("B-X O B-Y - B-X I-X - B-Y", set);
    const Row gold = row_of("B-X O B-X - B-X O - B-Y", set);
    Ratio sum = f1_of(std::span(said).first(3), std::span(gold).first(3), set);
    sum += f1_of(std::span(said).last(4), std::span(gold).last(4), set);
    CHECK(sum.value() == f1_of(said, gold, set).value());
}

TEST_CASE("tasks: the predicate is given so nothing is asked there nor without one") {
    Sentence sentence;
    sentence.words = {"He", "gave", "it", "up"};
    sentence.pos = {"PRON", "VERB", "PRON", "ADP"};
    sentence.ner = {"O", "O", "O", "O"};
    sentence.roles = {"B-ARG0", "B-V", "B-ARG1", "I-V"};
    sentence.predicate = 1;
    TagSets sets;
    const Tags tags = tags_of(sentence, sets);
    CHECK(sets[kSrl].name(tags[kSrl][0]) == "B-ARG0");
    CHECK(tags[kSrl][1] == kNoTag);
    CHECK(sets[kSrl].name(tags[kSrl][3]) == "O");
    CHECK(sets[kPos].name(tags[kPos][1]) == "VERB");
    sentence.predicate = -1;
    sentence.roles = {"O", "O", "O", "O"};
    CHECK(tags_of(sentence, sets)[kSrl] == Row(4, kNoTag));
}

TEST_CASE("baseline: the most frequent tag is each word's own or else that of all") {
    MostFrequent by_word(true);
    MostFrequent of_all(false);
    for (MostFrequent* one : {&by_word, &of_all}) {
        one->learn({"a", "b", "b", "b", "a", "c"}, {3, 1, 2, 2, 3, kNoTag});
        one->learn({"a", "d"}, {3, 2});
    }
    CHECK(by_word.say({"a", "b", "d", "c", "new"}) == Row{3, 2, 2, 3, 3});
    CHECK(of_all.say({"b", "new"}) == Row{3, 3});
}

}  // namespace
}  // namespace detente::tagging
