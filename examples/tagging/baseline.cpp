// tagging_baseline DIR [dev|test]: what the most frequent tag scores, by the same metrics as the
// model: one tag for all tokens, and one for each word.
#include <cstdio>
#include <string>

#include "examples/tagging/tasks.h"

int main(int argc, char** argv) {
    using namespace detente::tagging;
    if (argc < 2 || argc > 3) {
        std::fputs("usage: tagging_baseline DIR [dev|test]\n", stderr);
        return 2;
    }
    const std::string split = argc == 3 ? argv[2] : "dev";
    const auto corpus = read_corpus(argv[1], split);
    if (!corpus) {
        std::fprintf(stderr, "tagging_baseline: %s\n", corpus.error().text.c_str());
        return 3;
    }
    std::printf("%zu sentences to learn from, %zu scored (%s), in %%\n", corpus->training.size(),
                corpus->scored.size(), split.c_str());
    TagSets sets;
    std::vector<Tags> training;
    std::vector<Tags> scored;
    for (const Sentence& one : corpus->training) training.push_back(tags_of(one, sets));
    for (const Sentence& one : corpus->scored) scored.push_back(tags_of(one, sets));
    for (const bool by_word : {false, true}) {
        std::printf("most frequent tag of %s\n", by_word ? "each word" : "all tokens");
        for (std::size_t task = 0; task < kTasks; ++task) {
            MostFrequent frequent(by_word);
            for (std::size_t k = 0; k < training.size(); ++k) {
                frequent.learn(corpus->training[k].words, training[k][task]);
            }
            Ratio ratio;
            for (std::size_t k = 0; k < scored.size(); ++k) {
                ratio += score_of(task, frequent.say(corpus->scored[k].words), scored[k][task],
                                  sets[task]);
            }
            std::printf("  %-4s %6.2f  %s\n", kTaskNames[task], 100 * ratio.value(),
                        kMetricNames[task]);
        }
    }
    return 0;
}
