// The whole of the example but for processes: a made corpus, the model library, its gradients and
// its scores; and the treebank itself where it is.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <iostream>
#include <numeric>

#include "examples/tagging/tasks.h"
#include "tests/tagging/made_corpus.h"
#include "worker/engine.h"

namespace detente::tagging {
namespace {

std::unique_ptr<Engine> engine_of(const std::string& dir) {
    EngineOptions options;
    options.seed = 1;
    options.dataset_dir = dir;
    options.options = {{"width", "16"}, {"dropout", "0"}};
    auto engine = load_engine(TAGGING_LIBRARY, options);
    if (!engine) FAIL(engine.error().text);
    return std::move(*engine);
}

GradientRequest request_of(std::vector<std::uint32_t> samples) {
    GradientRequest request;
    request.samples = std::move(samples);
    request.tasks = {0b111};
    return request;
}

// Plain gradient descent on the sum of the three losses.
void descend(Engine& engine, const GradientReport& report, float rate) {
    for (std::size_t k = 0; k < engine.description().tensors.size(); ++k) {
        std::vector<float> values(engine.tensor(k).begin(), engine.tensor(k).end());
        for (std::uint32_t t = 0; t < kTasks; ++t) {
            const float* row = report.gradients->gradient(TaskId{t}, k);
            for (std::size_t e = 0; row && e < values.size(); ++e) values[e] -= rate * row[e];
        }
        engine.load(k, 0, std::as_bytes(std::span(values)));
    }
}

TEST_CASE("tagging: the encoder is of all three tasks and each head of one") {
    const test::MadeFolder folder;
    const auto engine = engine_of(folder.path());
    const ModelDescription& description = engine->description();
    CHECK(description.tasks == std::vector<std::string>{"ner", "pos", "srl"});
    CHECK(description.training_samples == 42);
    for (const auto& tensor : description.tensors) {
        CHECK(tensor.owners.count() == (tensor.name.starts_with("encoder.") ? 3 : 1));
    }
}

TEST_CASE("tagging: descent on a made corpus learns all three tasks") {
    const test::MadeFolder folder;
    const auto engine = engine_of(folder.path());
    std::vector<std::uint32_t> all(42);
    std::iota(all.begin(), all.end(), 0U);
    for (int step = 0; step < 150; ++step) {
        const auto report = engine->gradients(request_of(all));
        if (!report) FAIL(report.error().text);
        descend(*engine, *report, .2F);
    }
    const auto scores = engine->evaluate();
    REQUIRE(scores.has_value());
    for (const TaskScore& score : *scores) {
        INFO(score.task);
        CHECK(score.accuracy == 1);
        CHECK(score.loss < .2);
    }
    CHECK((*scores)[kNer].samples == 36 * 7 + 6 * 2);
    CHECK((*scores)[kSrl].samples == 36 * 6);  // not the predicate, not those that have none
}

TEST_CASE("tagging: a sentence's losses do not depend on what lies beside it in the batch") {
    const test::MadeFolder folder;
    const auto engine = engine_of(folder.path());
    const auto loss_of = [&](std::vector<std::uint32_t> samples, std::size_t task) {
        const auto report = engine->gradients(request_of(std::move(samples)));
        if (!report) FAIL(report.error().text);
        return report->losses[task];
    };
    // Samples 2, 3 and 4 are as long as each other, so their mean is that of the batch.
    for (std::size_t task = 0; task < kTasks; ++task) {
        const double apart = loss_of({2}, task) + loss_of({3}, task) + loss_of({4}, task);
        CHECK(loss_of({4, 2, 3}, task) == Approx(apart / 3).epsilon(1e-5));
    }
    // Sample 1 has no predicate: nothing is asked, and nothing is not NaN.
    CHECK(loss_of({1}, kSrl) == 0);
    CHECK(loss_of({1, 2}, kSrl) == Approx(loss_of({2}, kSrl)).epsilon(1e-5));
}

TEST_CASE("tagging: the treebank is read and the most frequent tag scores what is published") {
    const char* dir = std::getenv("DETENTE_EWT");
    if (dir == nullptr) {
        std::cout << "skipped: DETENTE_EWT names no folder with the treebank (fetch_ewt)\n";
        return;
    }
    const auto corpus = read_corpus(dir, "dev");
    if (!corpus) FAIL(corpus.error().text);
    TagSets sets;
    MostFrequent frequent(true);
    for (const Sentence& one : corpus->training) {
        frequent.learn(one.words, tags_of(one, sets)[kPos]);
    }
    Ratio ratio;
    for (const Sentence& one : corpus->scored) {
        const Tags tags = tags_of(one, sets);
        ratio += score_of(kPos, frequent.say(one.words), tags[kPos], sets[kPos]);
    }
    CHECK(corpus->scored.size() > 1900);
    CHECK(ratio.value() == Approx(.857).margin(.005));
}

}  // namespace
}  // namespace detente::tagging
