// The model library of the text example: entities, parts of speech and arguments of a predicate on
// the same sentences, over one encoder.
#include <torch/nn/functional/loss.h>

#include "examples/tagging/lexicon.h"
#include "examples/tagging/net.h"
#include "examples/tagging/tasks.h"
#include "worker/torch/model.h"

namespace detente::tagging {

class Tagging : public Model {
  public:
    explicit Tagging(const ModelOptions& options)
        : Tagging(options, opened(options.dataset_dir(), options.text("scored", "dev"))) {}

    std::vector<torch::Tensor> forward(const Batch& batch) override {
        const auto features = static_cast<std::int64_t>(Lexicon::kFeatures);
        const torch::Tensor words = batch.input().narrow(1, 0, features).contiguous();
        const torch::Tensor predicate = batch.input().select(1, features);
        const torch::Tensor real = batch.input().narrow(1, features + 1, 1).to(torch::kFloat);
        const torch::Tensor encoded = encoder_(words, real);
        return each_task([&](std::size_t task) {
            return task == kSrl ? roles_(encoded, predicate, real) : head(task, encoded);
        });
    }

    // Cross entropy over what is asked; a batch may hold no sentence with a predicate.
    torch::Tensor loss(std::size_t, const torch::Tensor& output,
                       const torch::Tensor& target) override {
        namespace F = torch::nn::functional;
        const auto asked = target.ne(kNoTag).sum().item<std::int64_t>();
        const auto options =
            F::CrossEntropyFuncOptions().reduction(torch::kSum).ignore_index(kNoTag);
        return F::cross_entropy(output, target, options) /
               static_cast<double>(std::max<std::int64_t>(asked, 1));
    }

    std::string metric(std::size_t task) const override { return kMetricNames[task]; }
    Score score(std::size_t task, const torch::Tensor& output,
                const torch::Tensor& target) override {
        const torch::Tensor said = output.argmax(1).contiguous();
        const auto row = [](const torch::Tensor& tags) {
            return std::span(tags.const_data_ptr<std::int64_t>(),
                             static_cast<std::size_t>(tags.numel()));
        };
        const Ratio ratio = score_of(task, row(said), row(target), sets_[task]);
        return {.hits = ratio.hits, .count = ratio.count, .samples = ratio.tokens};
    }

    std::uint64_t samples(Split split) const override { return numbered(split).size(); }

    Batch batch(Split split, std::span<const std::uint32_t> samples) override;

  private:
    struct Numbered {
        std::vector<Lexicon::Features> words;
        Tags tags;
        int predicate = -1;
    };

    Tagging(const ModelOptions& options, const Corpus& corpus) : lexicon_(corpus.training) {
        // Tags that only the scored split has are classes too, which nothing trains.
        for (const Sentence& one : corpus.training) training_.push_back(numbers_of(one));
        for (const Sentence& one : corpus.scored) scored_.push_back(numbers_of(one));
        const std::int64_t width = options.integer("width", 64);
        encoder_ = register_module("encoder",
                                   Encoder(lexicon_.rows(), width, options.real("dropout", 0.3)));
        add_task("ner", torch::nn::Linear(width, sets_[kNer].size()));
        add_task("pos", torch::nn::Linear(width, sets_[kPos].size()));
        add_task("srl");
        roles_ = register_module("roles", RoleHead(width, width, sets_[kSrl].size()));
    }

    static Corpus opened(const std::string& dir, const std::string& split) {
        if (split != "dev" && split != "test") {
            throw std::invalid_argument("[model.options] scored = \"" + split +
                                        "\": expected dev or test");
        }
        auto corpus = read_corpus(dir, split);
        if (!corpus) throw DatasetError(corpus.error().text);
        return std::move(*corpus);
    }

    Numbered numbers_of(const Sentence& sentence) {
        Numbered numbers{{}, tags_of(sentence, sets_), sentence.predicate};
        for (const std::string& word : sentence.words) {
            numbers.words.push_back(lexicon_.features(word));
        }
        return numbers;
    }
    const std::vector<Numbered>& numbered(Split split) const {
        return split == Split::training ? training_ : scored_;
    }

    Lexicon lexicon_;
    TagSets sets_;
    std::vector<Numbered> training_;
    std::vector<Numbered> scored_;
    Encoder encoder_{nullptr};
    RoleHead roles_{nullptr};
};

// One row of all sentences' tokens with padding between and after them; per token its features,
// where its sentence's predicate lies, and 1. Padding: zeros, no predicate, no tags.
Batch Tagging::batch(Split split, std::span<const std::uint32_t> samples) {
    const std::vector<Numbered>& from = numbered(split);
    std::int64_t tokens = 0;
    for (const std::uint32_t sample : samples) {
        tokens += static_cast<std::int64_t>(from[sample].words.size()) + kGap;
    }
    constexpr std::size_t kColumns = Lexicon::kFeatures + 2;
    torch::Tensor input = torch::zeros({tokens, static_cast<std::int64_t>(kColumns)}, torch::kLong);
    Batch batch{{input}, {}};
    std::array<std::int64_t*, kTasks> tags{};
    for (std::int64_t*& to : tags) {
        batch.targets.push_back(torch::full({tokens}, kNoTag, torch::kLong));
        to = batch.targets.back().data_ptr<std::int64_t>();
    }
    input.select(1, Lexicon::kFeatures).fill_(-1);
    auto* cell = input.data_ptr<std::int64_t>();
    std::size_t at = 0;
    for (const std::uint32_t sample : samples) {
        const Numbered& one = from[sample];
        for (std::size_t k = 0; k < one.words.size(); ++k) {
            std::int64_t* row = cell + (at + k) * kColumns;
            std::copy(one.words[k].begin(), one.words[k].end(), row);
            if (one.predicate >= 0) {
                row[Lexicon::kFeatures] = static_cast<std::int64_t>(at) + one.predicate;
            }
            row[Lexicon::kFeatures + 1] = 1;
        }
        for (std::size_t t = 0; t < kTasks; ++t) {
            std::copy(one.tags[t].begin(), one.tags[t].end(), tags[t] + at);
        }
        at += one.words.size() + kGap;
    }
    return batch;
}

}  // namespace detente::tagging

DETENTE_MODEL(detente::tagging::Tagging)
