// What a plain single-process loop reaches on MultiFashion: no server, no worker, no staleness.
// Same net, data, number of samples, initial weights, optimizer (torch::optim::Adam) and aggregator
// as the job examples/multifashion/multifashion.toml, so that its accuracies are what the job's are
// measured against, and its speed what a training process costs without Détente.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/functional/loss.h>
#include <torch/optim/adam.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "common/conflict/aggregator.h"
#include "common/conflict/gramian.h"
#include "common/random.h"
#include "examples/multifashion/net.h"

namespace detente::multifashion {
namespace {

constexpr std::size_t kTasks = 2;

struct Options {
    std::string data_dir;
    std::string aggregator = "pcgrad";
    std::uint64_t seed = 1;
    std::uint64_t pairing_seed = 1;
    std::uint64_t epochs = 3;
    std::uint64_t samples = 0;  // stop after so many; 0: all epochs
    std::uint64_t batch = 64;
    int threads = 1;
    double learning_rate = 1e-3;
    bool json = false;
};

struct Net {
    Trunk trunk;
    std::vector<torch::nn::Linear> heads;
    std::vector<torch::Tensor> shared;                // the trunk's parameters
    std::vector<std::vector<torch::Tensor>> of_task;  // trunk, then the task's head

    explicit Net(std::uint64_t seed) : trunk(nullptr) {
        torch::manual_seed(random_key(seed, Purpose::initial_weights));
        trunk = Trunk();
        shared = trunk->parameters();
        for (std::size_t t = 0; t < kTasks; ++t) {
            heads.emplace_back(TrunkImpl::kFeatures, 10);
            of_task.push_back(shared);
            for (const torch::Tensor& own : heads.back()->parameters()) of_task[t].push_back(own);
        }
    }
    std::vector<torch::Tensor> parameters() const {
        std::vector<torch::Tensor> all = shared;
        for (const auto& head : heads) {
            for (const torch::Tensor& own : head->parameters()) all.push_back(own);
        }
        return all;
    }
};

// One forward, one backward per task; the trunk's gradients combined by the aggregator, each head's
// taken as it is.
bool compute_gradients(Net& net, const Pictures& pictures, std::span<const std::uint32_t> samples,
                       const Aggregator& aggregator, AggregatorState& state, std::uint64_t key) {
    const torch::Tensor features = net.trunk(pictures_of(pictures, samples));
    std::vector<torch::autograd::variable_list> rows;
    std::vector<double> values;
    for (std::size_t t = 0; t < kTasks; ++t) {
        const torch::Tensor loss = torch::nn::functional::cross_entropy(
            net.heads[t](features), labels_of(pictures, samples, static_cast<int>(t)));
        values.push_back(loss.item<double>());
        rows.push_back(torch::autograd::grad({loss}, net.of_task[t], {}, t + 1 < kTasks, false));
    }
    Gramian gramian(kTasks);
    for (std::size_t k = 0; k < net.shared.size(); ++k) {
        const float* row[kTasks] = {rows[0][k].const_data_ptr<float>(),
                                    rows[1][k].const_data_ptr<float>()};
        gramian.add_block(row, static_cast<std::size_t>(net.shared[k].numel()));
    }
    const auto decided = aggregator.weights({&gramian, values, key}, state);
    if (!decided) {
        std::fprintf(stderr, "plain_loop: %s\n", decided.error().text.c_str());
        return false;
    }
    for (std::size_t k = 0; k < net.shared.size(); ++k) {
        const float* row[kTasks] = {rows[0][k].const_data_ptr<float>(),
                                    rows[1][k].const_data_ptr<float>()};
        torch::Tensor combined = torch::empty_like(net.shared[k]);
        combine(decided->weights, row,
                {combined.data_ptr<float>(), static_cast<std::size_t>(combined.numel())});
        net.shared[k].mutable_grad() = combined;
    }
    for (std::size_t t = 0; t < kTasks; ++t) {
        for (std::size_t k = net.shared.size(); k < net.of_task[t].size(); ++k) {
            net.of_task[t][k].mutable_grad() = rows[t][k];
        }
    }
    return true;
}

std::vector<double> accuracies(Net& net, const Pictures& pictures) {
    const torch::NoGradGuard no_gradients;
    std::vector<std::int64_t> hits(kTasks, 0);
    std::vector<std::uint32_t> samples;
    for (std::uint32_t begin = 0; begin < pictures.count(); begin += 256) {
        samples.clear();
        for (std::uint32_t k = begin; k < std::min(begin + 256, pictures.count()); ++k) {
            samples.push_back(k);
        }
        const torch::Tensor features = net.trunk(pictures_of(pictures, samples));
        for (std::size_t t = 0; t < kTasks; ++t) {
            const torch::Tensor labels = labels_of(pictures, samples, static_cast<int>(t));
            hits[t] += net.heads[t](features).argmax(1).eq(labels).sum().item<std::int64_t>();
        }
    }
    std::vector<double> shares;
    for (const std::int64_t hit : hits) shares.push_back(double(hit) / pictures.count());
    return shares;
}

struct Outcome {
    std::vector<double> accuracy;
    std::uint64_t samples = 0;
    double wall_s = 0;
};

std::optional<Outcome> train(const Options& options, const Splits& splits,
                             const Aggregator& aggregator) {
    using Clock = std::chrono::steady_clock;
    Net net(options.seed);
    torch::optim::Adam adam(net.parameters(), torch::optim::AdamOptions(options.learning_rate));
    AggregatorState state = aggregator.initial_state(kTasks);
    Outcome outcome;
    std::uint64_t step = 0;
    const std::uint64_t count = splits.training.count();
    const std::uint64_t wanted = options.samples ? std::min(options.samples, count * options.epochs)
                                                 : count * options.epochs;
    const Clock::time_point start = Clock::now();
    for (std::uint64_t epoch = 0; outcome.samples < wanted; ++epoch) {
        const auto order = permutation(random_key(options.seed, Purpose::batch_order, {epoch}),
                                       static_cast<std::uint32_t>(count));
        for (std::uint64_t at = 0; at < count && outcome.samples < wanted; at += options.batch) {
            const auto batch = std::span(order).subspan(at, std::min(options.batch, count - at));
            const std::uint64_t key = random_key(options.seed, Purpose::aggregator, {0, ++step});
            if (!compute_gradients(net, splits.training, batch, aggregator, state, key)) {
                return std::nullopt;
            }
            adam.step();
            outcome.samples += batch.size();
        }
        if (!options.json) std::fprintf(stderr, "data epoch %llu done\n", epoch + 1ULL);
    }
    outcome.wall_s = std::chrono::duration<double>(Clock::now() - start).count();
    outcome.accuracy = accuracies(net, splits.test);
    return outcome;
}

void print(const Options& options, const Outcome& outcome) {
    const double speed = static_cast<double>(outcome.samples) / outcome.wall_s;
    const char* form =
        options.json
            ? "{\"tasks\": {\"left\": {\"accuracy\": %.4f}, \"right\": {\"accuracy\": %.4f}}, "
              "\"samples\": %llu, \"wall_s\": %.3f, \"samples_per_s\": %.1f, \"seed\": %llu, "
              "\"threads\": %d}\n"
            : "left %.4f  right %.4f  samples %llu  wall %.3f s  %.1f samples/s  seed %llu  "
              "threads %d\n";
    std::printf(form, outcome.accuracy[0], outcome.accuracy[1],
                static_cast<unsigned long long>(outcome.samples), outcome.wall_s, speed,
                static_cast<unsigned long long>(options.seed), options.threads);
}

const char* const kUsage =
    "usage: plain_loop [--epochs 3] [--seed 1] [--threads 1] [--batch 64] [--samples N]\n"
    "                  [--learning-rate 1e-3] [--aggregator pcgrad] [--pairing-seed 1]\n"
    "                  [--data DIR] [--json]\n"
    "Trains MultiFashion in one process; prints test accuracy per task and samples/s.\n";

bool parse(int argc, char** argv, Options& options) {
    for (int k = 1; k < argc; ++k) {
        const std::string key = argv[k];
        if (key == "--json") {
            options.json = true;
            continue;
        }
        if (k + 1 == argc) return false;
        const char* value = argv[++k];
        char* end = nullptr;
        const auto number = [&] { return std::strtoull(value, &end, 10); };
        if (key == "--data") {
            options.data_dir = value;
        } else if (key == "--aggregator") {
            options.aggregator = value;
        } else if (key == "--learning-rate") {
            options.learning_rate = std::strtod(value, &end);
        } else if (key == "--epochs") {
            options.epochs = number();
        } else if (key == "--seed") {
            options.seed = number();
        } else if (key == "--pairing-seed") {
            options.pairing_seed = number();
        } else if (key == "--samples") {
            options.samples = number();
        } else if (key == "--batch") {
            options.batch = number();
        } else if (key == "--threads") {
            options.threads = static_cast<int>(number());
        } else {
            return false;
        }
        if (end && (*end != '\0' || end == value)) return false;
    }
    return options.batch > 0 && options.epochs > 0 && options.threads > 0;
}

int run(int argc, char** argv) {
    Options options;
    if (!parse(argc, argv, options)) {
        std::fputs(kUsage, stderr);
        return 2;
    }
    at::set_num_threads(options.threads);
    at::set_num_interop_threads(1);
    const auto aggregator = make_aggregator({options.aggregator, {}});
    if (!aggregator) {
        std::fprintf(stderr, "plain_loop: %s\n", aggregator.error().text.c_str());
        return 2;
    }
    const auto splits = open_splits(options.data_dir, options.pairing_seed);
    if (!splits) {
        std::fprintf(stderr, "plain_loop: %s\n", splits.error().text.c_str());
        return 1;
    }
    const auto outcome = train(options, *splits, **aggregator);
    if (!outcome) return 1;
    print(options, *outcome);
    return 0;
}

}  // namespace
}  // namespace detente::multifashion

int main(int argc, char** argv) {
    try {
        return detente::multifashion::run(argc, argv);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "plain_loop: %s\n", error.what());
        return 1;
    }
}
