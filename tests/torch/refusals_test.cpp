
#include "tests/torch/toy_models.h"

namespace detente {
namespace {

using toy::make;
using toy::ThreeTasks;

// Two tasks on one linear layer; what losses() does with their losses is the test's.
class Mixed : public Model {
  public:
    using Mix = std::vector<torch::Tensor> (*)(const std::vector<torch::Tensor>&,
                                               const torch::Tensor& trunk);
    Mixed(const ModelOptions&, Mix mix) : mix_(mix) {
        trunk_ = register_module("trunk", torch::nn::Linear(6, 4));
        add_task("a", torch::nn::Linear(4, 3));
        add_task("b", torch::nn::Linear(4, 2));
        const auto classes = ThreeTasks::classes(20);
        for (const Split split : {Split::training, Split::test}) {
            set_samples(split, ThreeTasks::rows(20), {classes[0], classes[1]});
        }
    }
    std::vector<torch::Tensor> forward(const Batch& batch) override {
        return heads(torch::tanh(trunk_(batch.input())));
    }
    std::vector<torch::Tensor> losses(const Batch& batch) override {
        return mix_(Model::losses(batch), trunk_->weight);
    }

  protected:
    torch::nn::Linear trunk_{nullptr};

  private:
    Mix mix_;
};

using Losses = std::vector<torch::Tensor>;

// Error text of a two-task model that mixes its losses so; empty if it is accepted.
template <Losses (*mix)(const Losses&, const torch::Tensor&)>
std::string refusal() {
    const ModelFactory factory = [](const ModelOptions& options) -> std::shared_ptr<Model> {
        return std::make_shared<Mixed>(options, mix);
    };
    const auto engine = TaskGradientEngine::create("Mixed", factory, {});
    if (engine) return "";
    CHECK(engine.error().code == ErrorCode::bad_model);
    return engine.error().text;
}

template <class M>
Error error_of(const EngineOptions& options = {}) {
    const auto engine = make<M>(options);
    return engine ? Error{ErrorCode::internal, ""} : engine.error();
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

Losses one(const Losses& l, const torch::Tensor&) { return {l[0] + l[1]}; }
Losses same(const Losses& l, const torch::Tensor&) { return {l[0] + l[1], l[0] + l[1]}; }
Losses twice(const Losses& l, const torch::Tensor&) {
    const torch::Tensor sum = l[0] + l[1];
    return {sum, sum};
}
Losses scaled(const Losses& l, const torch::Tensor&) {
    const torch::Tensor mean = torch::stack({l[0], l[1]}).mean();
    return {mean * 0.5, mean / 3};
}
Losses contains(const Losses& l, const torch::Tensor&) { return {l[0] + l[1], l[1]}; }
Losses three(const Losses& l, const torch::Tensor&) { return {l[0], l[1], l[1] * 2}; }
Losses vectors(const Losses& l, const torch::Tensor&) { return {torch::stack({l[0], l[0]}), l[1]}; }
Losses detached(const Losses& l, const torch::Tensor&) { return {l[0], l[1].detach()}; }
Losses regularised(const Losses& l, const torch::Tensor& w) {
    const torch::Tensor decay = w.square().sum();
    return {l[0] + decay, l[1] + decay};
}
Losses unreached(const Losses& l, const torch::Tensor& w) { return {l[0], w.square().sum()}; }
Losses separate(const Losses& l, const torch::Tensor&) { return {l[0] * 0.3, l[1] * 0.7}; }

TEST_CASE("engine: a model whose tasks were summed before the backward is refused") {
    CHECK(has(refusal<one>(), "one loss for 2 tasks: tasks were summed before the backward"));
    CHECK(has(refusal<twice>(), "task b is the same tensor as another task's: tasks were summed"));
    CHECK(has(refusal<scaled>(), "same gradient up to a factor: tasks were summed"));
    CHECK(has(refusal<same>(), "tasks were summed before the backward"));
    CHECK(has(refusal<contains>(), "loss of task a contains the loss of task b"));
}

TEST_CASE("engine: losses that share a term or are weighted each are not taken for summed") {
    CHECK(refusal<regularised>().empty());
    CHECK(refusal<separate>().empty());
}

TEST_CASE("engine: losses of the wrong number, shape or without gradient are refused") {
    CHECK(has(refusal<three>(), "3 losses for 2 tasks"));
    CHECK(has(refusal<vectors>(), "loss of task a is 2 numbers; expected one number"));
    CHECK(has(refusal<detached>(), "loss of task b has no gradient"));
    CHECK(has(refusal<unreached>(), "no task's loss reaches tensor \"heads.b.weight\""));
}

class WithBatchNorm : public ThreeTasks {
  public:
    explicit WithBatchNorm(const ModelOptions& options) : ThreeTasks(options) {
        register_module("norm", torch::nn::BatchNorm1d(8));
    }
};

class WithDouble : public ThreeTasks {
  public:
    explicit WithDouble(const ModelOptions& options) : ThreeTasks(options) {
        register_parameter("scale", torch::ones({2}, torch::kDouble));
    }
};

class NoTask : public Model {
  public:
    explicit NoTask(const ModelOptions&) {}
    std::vector<torch::Tensor> forward(const Batch&) override { return {}; }
};

class Throws : public ThreeTasks {
  public:
    explicit Throws(const ModelOptions& options) : ThreeTasks(options) {
        torch::zeros({2, 3}).matmul(torch::zeros({4, 5}));
    }
};

// Targets that are no class numbers, under the default loss and score.
template <torch::ScalarType kType>
class Heights : public Model {
  public:
    explicit Heights(const ModelOptions&) {
        add_task("height", torch::nn::Linear(4, 1));
        for (const Split split : {Split::training, Split::test}) {
            set_samples(split, torch::rand({8, 4}), {torch::ones({8, 1}).to(kType)});
        }
    }
    std::vector<torch::Tensor> forward(const Batch& batch) override { return heads(batch.input()); }
};

TEST_CASE("engine: targets that are no class numbers are refused with the task and what to do") {
    const std::string whole = error_of<Heights<torch::kInt>>().text;
    CHECK(has(whole, "task height: its targets are Int"));
    CHECK(has(whole, "override loss()"));
    // The loss would do; the score would have been 0 % for ever.
    CHECK(has(error_of<Heights<torch::kFloat>>().text, "override score()"));
}

TEST_CASE("engine: modules with buffers are refused by name") {
    const Error error = error_of<WithBatchNorm>();
    CHECK(error.code == ErrorCode::bad_model);
    CHECK(has(error.text, "module \"norm\" (torch::nn::BatchNorm1dImpl) has buffers"));
    CHECK(has(error.text, "running_mean"));
    CHECK(has(error.text, "GroupNorm"));
}

TEST_CASE("engine: what cannot be trained is refused when the model is made, with its reason") {
    CHECK(has(error_of<WithDouble>().text, "parameter \"scale\""));
    CHECK(has(error_of<NoTask>().text, "has no task; call add_task"));
    CHECK(has(error_of<Throws>().text, "mat1 and mat2 shapes cannot be multiplied"));
}

TEST_CASE("engine: a frozen pattern or an option that means nothing is refused with the nearest") {
    EngineOptions frozen;
    frozen.frozen = {"trunk.*", "trunk.wieght"};
    CHECK(has(error_of<ThreeTasks>(frozen).text, "nearest name is \"trunk.weight\""));
    EngineOptions mistyped;
    mistyped.options = {{"droput", "0.5"}};
    const Error error = error_of<ThreeTasks>(mistyped);
    CHECK(error.code == ErrorCode::bad_job);
    CHECK(has(error.text, "[model.options] droput"));
    CHECK(has(error.text, "nearest is \"dropout\""));
    EngineOptions wrong;
    wrong.options = {{"dropout", "half"}};
    CHECK(has(error_of<ThreeTasks>(wrong).text, "dropout = \"half\": expected a number"));
    EngineOptions all;
    all.frozen = {"*"};
    CHECK(has(error_of<ThreeTasks>(all).text, "reaches only frozen tensors"));
}

// The same weight under two names is one tensor.
class Tied : public ThreeTasks {
  public:
    explicit Tied(const ModelOptions& options) : ThreeTasks(options) {
        register_parameter("again", named_parameters()["trunk.weight"]);
    }
};

TEST_CASE("engine: a tensor under two names is described and trained once") {
    const auto plain = make<ThreeTasks>();
    const auto tied = make<Tied>();
    REQUIRE(tied.has_value());
    CHECK((*tied)->description().tensors.size() == (*plain)->description().tensors.size());
    CHECK((*tied)->gradients(toy::request()).has_value());
}

}  // namespace
}  // namespace detente
