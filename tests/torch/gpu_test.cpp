// Models on a real GPU, where there is one: against the processor's gradients, and against
// themselves. Streams that overtook each other would show as values of another step.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/torch/toy_models.h"

namespace detente {
namespace {

using toy::make;
using toy::ThreeTasks;

// Nothing where models can compute on a GPU; else why not. Asked before LibTorch computes.
const std::string& hindrance() {
    static const std::string why = [] {
        if (::access("/dev/nvidia0", F_OK) != 0) return std::string("no GPU here");
        const auto found = find_accelerator("cuda:0");
        return found.has_value() ? std::string() : found.error().text;
    }();
    return why;
}

// Skips, with one line, where there is none.
#define REQUIRE_GPU()                                         \
    if (const std::string& why = hindrance(); !why.empty()) { \
        WARN("skipped: no model runs on a GPU: " << why);     \
        return;                                               \
    }                                                         \
    static_cast<void>(0)

// Wide enough that a kernel is still running when the host has gone on.
class Wide : public Model {
  public:
    explicit Wide(const ModelOptions& /*options*/) {
        trunk_ = register_module("trunk", torch::nn::Linear(6, kWidth));
        deeper_ = register_module("deeper", torch::nn::Linear(kWidth, kWidth));
        for (const char* name : {"shape", "colour", "size"}) {
            add_task(name, torch::nn::Linear(kWidth, 4));
        }
        auto classes = ThreeTasks::classes(kSamples);
        for (const Split split : {Split::training, Split::test}) {
            set_samples(split, ThreeTasks::rows(kSamples), classes);
        }
    }
    std::vector<torch::Tensor> forward(const Batch& batch) override {
        return heads(torch::tanh(deeper_(torch::tanh(trunk_(batch.input())))));
    }

    static constexpr std::int64_t kWidth = 512;
    static constexpr std::int64_t kSamples = 1024;

  private:
    torch::nn::Linear trunk_{nullptr};
    torch::nn::Linear deeper_{nullptr};
};

EngineOptions on_gpu() {
    EngineOptions options;
    options.device = "cuda:0";
    return options;
}

GradientRequest of_many(std::uint64_t key) {
    GradientRequest request = toy::request({0b111}, key);
    request.samples.resize(256);
    for (std::size_t i = 0; i < request.samples.size(); ++i) {
        request.samples[i] = static_cast<std::uint32_t>((i * 3 + key) % Wide::kSamples);
    }
    return request;
}

// Other weights at every step, by tensor and place.
void load_step(Engine& engine, int step) {
    for (std::size_t k = 0; k < engine.description().tensors.size(); ++k) {
        std::vector<float> values(engine.tensor(k).size());
        for (std::size_t i = 0; i < values.size(); ++i) {
            const double turn = static_cast<double>(i % 97) + 31 * step + 7 * double(k);
            values[i] = static_cast<float>(.05 * std::sin(turn));
        }
        engine.load(k, 0, std::as_bytes(std::span<const float>(values)));
    }
}

// |a − b| over |b|, in the 2-norm; both of `count`.
double relative_difference(const float* a, const float* b, std::size_t count) {
    double difference = 0;
    double norm = 0;
    for (std::size_t i = 0; i < count; ++i) {
        difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
        norm += double(b[i]) * b[i];
    }
    return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

// The largest of all rows.
double largest_difference(const Engine& engine, const GradientReport& a, const GradientReport& b) {
    double largest = 0;
    for (std::uint32_t t = 0; t < engine.description().tasks.size(); ++t) {
        for (std::size_t k = 0; k < engine.description().tensors.size(); ++k) {
            const float* found = a.gradients->gradient(TaskId{t}, k);
            const float* expected = b.gradients->gradient(TaskId{t}, k);
            REQUIRE((found == nullptr) == (expected == nullptr));
            if (found == nullptr) continue;
            largest =
                std::max(largest, relative_difference(found, expected, engine.tensor(k).size()));
        }
    }
    return largest;
}

void check_same_bits(const Engine& engine, const GradientReport& a, const GradientReport& b) {
    CHECK(a.losses == b.losses);
    for (std::uint32_t t = 0; t < engine.description().tasks.size(); ++t) {
        for (std::size_t k = 0; k < engine.description().tensors.size(); ++k) {
            const float* one = a.gradients->gradient(TaskId{t}, k);
            if (one == nullptr) continue;
            CHECK(std::memcmp(one, b.gradients->gradient(TaskId{t}, k),
                              engine.tensor(k).size_bytes()) == 0);
        }
    }
}

constexpr double kRounding = 1e-4;  // of float, over sums of some hundred terms in another order

TEST_CASE("gpu: gradients of every step are the processor's to rounding") {
    REQUIRE_GPU();
    const auto engine = TaskGradientEngine::create("Toy", &make_model<Wide>, on_gpu());
    if (engine.has_error()) FAIL(engine.error().text);
    CHECK((*engine)->description().versions.ends_with(", on cuda:0"));
    const auto plain = make<Wide>();
    for (int step = 0; step < 40; ++step) {
        load_step(**engine, step);
        load_step(**plain, step);
        const auto request = of_many(static_cast<std::uint64_t>(step));
        const auto found = (*engine)->gradients(request);
        const auto expected = (*plain)->gradients(request);
        REQUIRE(found.has_value());
        REQUIRE(expected.has_value());
        CAPTURE(step);
        CHECK(largest_difference(**engine, *found, *expected) < kRounding);
    }
}

TEST_CASE("gpu: the same step gives the same bits") {
    REQUIRE_GPU();
    const auto engine = TaskGradientEngine::create("Toy", &make_model<Wide>, on_gpu());
    if (engine.has_error()) FAIL(engine.error().text);
    load_step(**engine, 1);
    const auto first = (*engine)->gradients(of_many(3));
    REQUIRE(first.has_value());
    for (int again = 0; again < 20; ++again) {
        const auto other = (*engine)->gradients(of_many(4));
        REQUIRE(other.has_value());
        const auto same = (*engine)->gradients(of_many(3));
        REQUIRE(same.has_value());
        check_same_bits(**engine, *first, *same);
    }
}

TEST_CASE("gpu: a task's rows are right when it is told done while the next one computes") {
    REQUIRE_GPU();
    const auto engine = TaskGradientEngine::create("Toy", &make_model<Wide>, on_gpu());
    if (engine.has_error()) FAIL(engine.error().text);
    const auto plain = make<Wide>();
    for (int step = 0; step < 20; ++step) {
        load_step(**engine, step);
        load_step(**plain, step);
        auto request = of_many(static_cast<std::uint64_t>(step));
        const auto expected = (*plain)->gradients(request);
        REQUIRE(expected.has_value());
        std::uint32_t told = 0;
        request.task_done = [&](TaskId task, const TaskGradients& rows) {
            ++told;
            for (std::size_t k = 0; k < (*plain)->description().tensors.size(); ++k) {
                const float* row = rows.gradient(task, k);
                if (row == nullptr) continue;
                CHECK(relative_difference(row, expected->gradients->gradient(task, k),
                                          (*plain)->tensor(k).size()) < kRounding);
            }
        };
        REQUIRE((*engine)->gradients(request).has_value());
        CHECK(told == 3);
    }
}

TEST_CASE("gpu: a cancelled step leaves the next as ever") {
    REQUIRE_GPU();
    const auto engine = TaskGradientEngine::create("Toy", &make_model<Wide>, on_gpu());
    if (engine.has_error()) FAIL(engine.error().text);
    const auto first = (*engine)->gradients(of_many(1));
    REQUIRE(first.has_value());
    std::atomic<bool> cancelled = false;
    auto request = of_many(2);
    request.cancelled = &cancelled;
    request.task_done = [&](TaskId, const TaskGradients&) { cancelled = true; };
    const auto stopped = (*engine)->gradients(request);
    REQUIRE_FALSE(stopped.has_value());
    CHECK(stopped.error().code == ErrorCode::cancelled);
    const auto same = (*engine)->gradients(of_many(1));
    REQUIRE(same.has_value());
    check_same_bits(**engine, *first, *same);
}

TEST_CASE("gpu: a number that no GPU has is refused with how many there are") {
    REQUIRE_GPU();
    EngineOptions options;
    options.device = "cuda:99";
    const auto engine = make<Wide>(options);
    REQUIRE_FALSE(engine.has_value());
    CHECK(engine.error().code == ErrorCode::not_supported);
    CHECK_THAT(engine.error().text, Catch::Contains(" GPUs, numbered from 0"));
}

}  // namespace
}  // namespace detente
