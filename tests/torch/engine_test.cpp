#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "common/random.h"
#include "tests/torch/toy_models.h"
#include "worker/torch/generator.h"

namespace detente {
namespace {

using toy::index_of;
using toy::make;
using toy::request;
using toy::ThreeTasks;

// All rows of a report as bytes, with a mark where there is none.
std::string bytes_of(const Engine& engine, const GradientReport& report) {
    std::string bytes;
    for (std::uint32_t t = 0; t < engine.description().tasks.size(); ++t) {
        for (std::size_t k = 0; k < engine.description().tensors.size(); ++k) {
            const float* row = report.gradients->gradient(TaskId{t}, k);
            bytes += row ? '+' : '-';
            if (row) {
                bytes.append(reinterpret_cast<const char*>(row), engine.tensor(k).size_bytes());
            }
        }
    }
    return bytes;
}

TEST_CASE("engine: each task's rows are torch's own backward of that loss alone") {
    EngineOptions options;
    options.seed = 7;
    auto engine = make<ThreeTasks>(options);
    REQUIRE(engine.has_value());
    seed_default_generator(random_key(7, Purpose::initial_weights));
    const auto model = make_model<ThreeTasks>(ModelOptions(options));
    const auto report = (*engine)->gradients(request());
    REQUIRE(report.has_value());
    for (std::uint32_t t = 0; t < 3; ++t) {
        model->zero_grad();
        const auto losses = model->losses(model->batch(Split::training, request().samples));
        losses[t].backward();
        CHECK(report->losses[t] == losses[t].item<double>());
        for (const auto& parameter : model->named_parameters()) {
            const std::size_t k = index_of(**engine, parameter.key());
            const float* row = report->gradients->gradient(TaskId{t}, k);
            const torch::Tensor& expected = parameter.value().grad();
            INFO(parameter.key() << " of task " << t);
            REQUIRE((row != nullptr) == expected.defined());
            if (row) {
                CHECK(std::memcmp(row, expected.data_ptr<float>(), expected.nbytes()) == 0);
            }
        }
    }
}

TEST_CASE("engine: a tensor's owners are the tasks whose loss reaches it") {
    const auto engine = make<ThreeTasks>();
    REQUIRE(engine.has_value());
    const ModelDescription& description = (*engine)->description();
    CHECK(description.tasks == std::vector<std::string>{"shape", "colour", "size"});
    CHECK(description.training_samples == 64);
    CHECK(description.test_samples == 300);
    CHECK(description.versions.find("LibTorch " TORCH_VERSION) == 0);
    const auto owners = [&](const char* name) {
        return description.tensors[index_of(**engine, name)].owners.bits;
    };
    CHECK(owners("trunk.weight") == 0b111);
    CHECK(owners("trunk.bias") == 0b111);
    CHECK(owners("heads.shape.weight") == 0b001);
    CHECK(owners("heads.colour.bias") == 0b010);
    CHECK(owners("private.weight") == 0b100);
    CHECK(description.tensors[index_of(**engine, "private.weight")].shape ==
          std::vector<std::int64_t>{4, 8});
}

TEST_CASE("engine: a frozen tensor has no owner and no gradient, the rest keeps its own") {
    EngineOptions options;
    const auto free = make<ThreeTasks>(options);
    options.frozen = {"trunk.*", "heads.colour.bias"};
    const auto frozen = make<ThreeTasks>(options);
    REQUIRE(frozen.has_value());
    const std::size_t trunk = index_of(**frozen, "trunk.weight");
    const std::size_t head = index_of(**frozen, "heads.shape.weight");
    CHECK((*frozen)->description().tensors[trunk].frozen);
    CHECK((*frozen)->description().tensors[trunk].owners.empty());
    CHECK_FALSE((*frozen)->description().tensors[head].frozen);
    const auto a = (*free)->gradients(request());
    const auto b = (*frozen)->gradients(request());
    REQUIRE(b.has_value());
    CHECK(a->gradients->gradient(TaskId{0}, trunk) != nullptr);
    CHECK(b->gradients->gradient(TaskId{0}, trunk) == nullptr);
    CHECK(std::memcmp(a->gradients->gradient(TaskId{0}, head),
                      b->gradients->gradient(TaskId{0}, head), 3 * 8 * sizeof(float)) == 0);
}

TEST_CASE("engine: computes only the tasks it is asked for") {
    const auto engine = make<ThreeTasks>();
    const auto all = (*engine)->gradients(request());
    const auto one = (*engine)->gradients(request({0b010}));
    REQUIRE(one.has_value());
    const std::size_t trunk = index_of(**engine, "trunk.weight");
    CHECK(one->gradients->gradient(TaskId{0}, trunk) == nullptr);
    CHECK(one->losses[0] == 0);
    CHECK(one->losses[1] == all->losses[1]);
    CHECK(std::memcmp(one->gradients->gradient(TaskId{1}, trunk),
                      all->gradients->gradient(TaskId{1}, trunk), 6 * 8 * sizeof(float)) == 0);
}

TEST_CASE("engine: gradients are a function of weights, batch and key, dropout included") {
    EngineOptions options;
    options.options = {{"dropout", "0.5"}};
    const auto a = make<ThreeTasks>(options);
    const auto b = make<ThreeTasks>(options);
    REQUIRE(a.has_value());
    const std::string first = bytes_of(**a, *(*a)->gradients(request({0b111}, 11)));
    const std::string other = bytes_of(**a, *(*a)->gradients(request({0b111}, 12)));
    CHECK(first != other);
    CHECK(first == bytes_of(**a, *(*a)->gradients(request({0b111}, 11))));
    CHECK(first == bytes_of(**b, *(*b)->gradients(request({0b111}, 11))));
    CHECK((*a)->draws_from_shared_generator());
    CHECK_FALSE((*make<ThreeTasks>())->draws_from_shared_generator());
    const std::size_t trunk = index_of(**a, "trunk.weight");
    const auto all = (*a)->gradients(request({0b111}, 11));
    const auto last = (*a)->gradients(request({0b100}, 11));
    CHECK(std::memcmp(all->gradients->gradient(TaskId{2}, trunk),
                      last->gradients->gradient(TaskId{2}, trunk), 6 * 8 * sizeof(float)) == 0);
}

TEST_CASE("engine: initial weights are a function of the seed") {
    EngineOptions options;
    options.seed = 3;
    const auto a = make<ThreeTasks>(options);
    const auto b = make<ThreeTasks>(options);
    options.seed = 4;
    const auto c = make<ThreeTasks>(options);
    const auto weight = [](const auto& engine) {
        const auto values = (*engine)->tensor(index_of(**engine, "trunk.weight"));
        return std::vector<float>(values.begin(), values.end());
    };
    CHECK(weight(a) == weight(b));
    CHECK(weight(a) != weight(c));
}

TEST_CASE("engine: loads part of a tensor from bytes at any address") {
    const auto engine = make<ThreeTasks>();
    const std::size_t k = index_of(**engine, "trunk.weight");
    const std::vector<float> before((*engine)->tensor(k).begin(), (*engine)->tensor(k).end());
    const std::vector<float> values{1.5F, -2.5F, 3.5F};
    std::vector<std::byte> bytes(1 + values.size() * sizeof(float));
    std::memcpy(bytes.data() + 1, values.data(), values.size() * sizeof(float));
    (*engine)->load(k, 10, std::span(bytes).subspan(1));
    const auto after = (*engine)->tensor(k);
    CHECK(after[9] == before[9]);
    CHECK(after[10] == 1.5F);
    CHECK(after[12] == 3.5F);
    CHECK(after[13] == before[13]);
    CHECK((*engine)->gradients(request()).has_value());
}

TEST_CASE("engine: evaluation scores every test sample once, without dropout") {
    EngineOptions options;
    options.options = {{"dropout", "0.5"}};
    const auto engine = make<ThreeTasks>(options);
    const auto scores = (*engine)->evaluate();
    REQUIRE(scores.has_value());
    seed_default_generator(random_key(0, Purpose::initial_weights));
    const auto model = make_model<ThreeTasks>(ModelOptions(options));
    model->eval();
    std::vector<std::uint32_t> all(toy::kTest);
    std::iota(all.begin(), all.end(), 0U);
    const Batch batch = model->batch(Split::test, all);
    const auto outputs = model->forward(batch);
    for (std::size_t t = 0; t < 3; ++t) {
        const auto right = outputs[t].argmax(1).eq(batch.targets[t]).sum().item<double>();
        CHECK((*scores)[t].samples == 300);
        CHECK((*scores)[t].accuracy == Approx(right / 300));
        CHECK((*scores)[t].loss ==
              Approx(model->loss(t, outputs[t], batch.targets[t]).item<double>()).epsilon(1e-5));
    }
    CHECK((*scores)[1].task == "colour");
}

// F1 of the second class of "colour": its count is no number of answers.
class ByF1 : public ThreeTasks {
  public:
    using ThreeTasks::ThreeTasks;
    Score score(std::size_t t, const torch::Tensor& output, const torch::Tensor& target) override {
        if (t != 1) return ThreeTasks::score(t, output, target);
        const torch::Tensor said = output.argmax(1);
        const auto right = (said * target).sum().item<double>();
        const auto wrong = said.ne(target).sum().item<double>();
        return {.hits = 2 * right,
                .count = 2 * right + wrong,
                .samples = static_cast<double>(target.numel())};
    }
};

TEST_CASE("engine: a score that is another ratio of sums than accuracy is added up over batches") {
    const EngineOptions options;
    const auto engine = make<ByF1>(options);
    const auto scores = (*engine)->evaluate();
    REQUIRE(scores.has_value());
    seed_default_generator(random_key(0, Purpose::initial_weights));
    const auto model = make_model<ByF1>(ModelOptions(options));
    std::vector<std::uint32_t> all(toy::kTest);
    std::iota(all.begin(), all.end(), 0U);
    const Batch batch = model->batch(Split::test, all);
    const torch::Tensor output = model->forward(batch)[1];
    const Score at_once = model->score(1, output, batch.targets[1]);
    CHECK((*scores)[1].accuracy == Approx(at_once.hits / at_once.count));
    CHECK((*scores)[1].samples == 300);
    CHECK((*scores)[1].loss ==
          Approx(model->loss(1, output, batch.targets[1]).item<double>()).epsilon(1e-5));
    CHECK((*scores)[0].samples == 300);
}

// A task whose loss turns NaN with the sample named by `at`.
class TurnsNan : public ThreeTasks {
  public:
    using ThreeTasks::ThreeTasks;
    torch::Tensor loss(std::size_t t, const torch::Tensor& output,
                       const torch::Tensor& target) override {
        const torch::Tensor fine = ThreeTasks::loss(t, output, target);
        const bool now = t == 1 && target.size(0) == 16;  // not in the probe's batch of 8
        return now ? fine * std::numeric_limits<float>::quiet_NaN() : fine;
    }
};

TEST_CASE("engine: a loss that is not finite is refused and its task named") {
    const auto engine = make<TurnsNan>();
    REQUIRE(engine.has_value());
    const auto report = (*engine)->gradients(request());
    REQUIRE_FALSE(report.has_value());
    CHECK(report.error().code == ErrorCode::not_finite);
    CHECK(report.error().text.find("task colour is nan") != std::string::npos);
    CHECK((*engine)->gradients(request({0b101})).has_value());
}

std::atomic<bool> stop{false};
int backwards_run = 0;

class StopsInFirst : public ThreeTasks {
  public:
    using ThreeTasks::ThreeTasks;
    torch::Tensor loss(std::size_t t, const torch::Tensor& output,
                       const torch::Tensor& target) override {
        torch::Tensor loss = ThreeTasks::loss(t, output, target);
        if (!loss.requires_grad()) return loss;  // scored only
        loss.register_hook([](const torch::Tensor& gradient) {
            ++backwards_run;
            stop = true;
            return gradient;
        });
        return loss;
    }
};

TEST_CASE("engine: a cancel takes effect between two tasks' backwards") {
    const auto engine = make<StopsInFirst>();
    REQUIRE(engine.has_value());
    stop = false;
    backwards_run = 0;
    GradientRequest asked = request();
    asked.cancelled = &stop;
    const auto report = (*engine)->gradients(asked);
    REQUIRE_FALSE(report.has_value());
    CHECK(report.error().code == ErrorCode::cancelled);
    CHECK(report.error().text.find("colour") != std::string::npos);
    CHECK(backwards_run == 1);
}

TEST_CASE("engine: each task has a log of its own, and is current in its own part") {
    const auto folder = std::filesystem::temp_directory_path() /
                        ("detente_task_logs_" + std::to_string(::getpid()));
    std::filesystem::create_directory(folder);
    EngineOptions options;
    options.log_dir = folder.string();
    const auto engine = make<ThreeTasks>(options);
    REQUIRE(engine.has_value());
    for (int k = 0; k < 100; ++k) REQUIRE((*engine)->gradients(request()).has_value());
    std::stringstream text;
    text << std::ifstream(folder / "colour.log").rdbuf();
    CHECK(text.str().find("task colour id=1 tensors:") == 0);
    CHECK(text.str().find("heads.colour.weight") != std::string::npos);
    CHECK(text.str().find("heads.shape.weight") == std::string::npos);
    CHECK(text.str().find("computations=100 loss=") != std::string::npos);
    CHECK(std::filesystem::exists(folder / "size.log"));
    std::filesystem::remove_all(folder);

    ThreeTasks model{ModelOptions(options)};
    model.losses(model.batch(Split::training, request().samples));
    CHECK(model.seen_ == std::vector<std::string>{"shape", "colour", "size"});
    CHECK(current_task() == nullptr);

    const auto refused = make<ThreeTasks>(options);  // the folder is gone
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == ErrorCode::io);
    CHECK(refused.error().text.find(options.log_dir) != std::string::npos);
}

// Each task on rows of its own.
class OwnRows : public Model {
  public:
    explicit OwnRows(const ModelOptions&) {
        add_task("a", torch::nn::Linear(6, 3));
        add_task("b", torch::nn::Linear(6, 2));
        const auto classes = ThreeTasks::classes(20);
        const torch::Tensor rows = ThreeTasks::rows(20);
        for (const Split split : {Split::training, Split::test}) {
            set_samples(split, {rows, rows * 2}, {classes[0], classes[1]});
        }
    }
    std::vector<torch::Tensor> forward(const Batch& batch) override {
        return each_task([&](std::size_t t) { return head(t, batch.input(t)); });
    }
};

TEST_CASE("engine: tasks may each have their own batch") {
    const auto engine = make<OwnRows>();
    REQUIRE(engine.has_value());
    auto asked = request({0b11});
    asked.samples = {1, 2, 3};
    const auto report = (*engine)->gradients(asked);
    REQUIRE(report.has_value());
    CHECK(report->gradients->gradient(TaskId{0}, index_of(**engine, "heads.b.weight")) == nullptr);
    CHECK(report->gradients->gradient(TaskId{1}, index_of(**engine, "heads.b.weight")) != nullptr);
    asked.samples = {20};
    const auto refused = (*engine)->gradients(asked);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == ErrorCode::bad_dataset);
    CHECK(refused.error().text.find("sample 20 of a training set of 20") != std::string::npos);
}

}  // namespace
}  // namespace detente
