// Gates: what they do on the way back, and that what they learn is the slope of the loss one step
// ahead, taken by finite differences in double.
#include <torch/csrc/autograd/autograd.h>

#include "tests/torch/lone_worker.h"
#include "worker/engine_pool.h"

namespace detente {
namespace {

using toy::lone_job;
using toy::lone_worker;
using toy::LoneWorker;
using toy::ThreeTasks;
using Rows = LoneWorker::Rows;

// A residual branch behind a gate: on the input itself, or on a trunk's output.
template <bool kOnTrunk>
class Residual : public Model {
  public:
    explicit Residual(const ModelOptions&) {
        gate_ = add_gate("branch");
        if (kOnTrunk) trunk_ = register_module("trunk", torch::nn::Linear(6, 6));
        branch_ = register_module("branch", torch::nn::Linear(6, 6));
        add_task("shape", torch::nn::Linear(6, 3));
        add_task("colour", torch::nn::Linear(6, 2));
        const auto classes = ThreeTasks::classes(toy::kTraining);
        for (const Split split : {Split::training, Split::test}) {
            set_samples(split, ThreeTasks::rows(toy::kTraining), {classes[0], classes[1]});
        }
    }
    std::vector<torch::Tensor> forward(const Batch& batch) override {
        const torch::Tensor x = kOnTrunk ? torch::tanh(trunk_(batch.input())) : batch.input();
        return heads(x + gate_(torch::tanh(branch_(x))));
    }

  private:
    Gate gate_;
    torch::nn::Linear trunk_{nullptr};
    torch::nn::Linear branch_{nullptr};
};

double sigmoid(double a) { return 1 / (1 + std::exp(-a)); }

// Σ of the losses of `then` after one step of gradient descent on `now`, where the branch's
// gradients are scaled by σ(a) of their task.
double loss_ahead(const LoneWorker::Rows& weights, const std::vector<double>& a, double rate,
                  const std::vector<std::uint32_t>& now, const std::vector<std::uint32_t>& then) {
    const auto model = toy::in_double<Residual<false>>(weights);
    const auto named = model->named_parameters();
    std::vector<torch::Tensor> parameters;
    std::vector<bool> gated;
    for (const auto& parameter : named) {
        parameters.push_back(parameter.value());
        gated.push_back(parameter.key().rfind("branch.", 0) == 0);
    }
    const auto losses = toy::losses_of(*model, now);
    std::vector<torch::Tensor> moves(parameters.size());
    for (std::size_t t = 0; t < losses.size(); ++t) {
        const auto gradients =
            torch::autograd::grad({losses[t]}, parameters, {}, true, false, true);
        for (std::size_t k = 0; k < parameters.size(); ++k) {
            if (!gradients[k].defined()) continue;
            const torch::Tensor scaled = gradients[k] * (gated[k] ? sigmoid(a[t]) : 1.0);
            moves[k] = moves[k].defined() ? moves[k] + scaled : scaled;
        }
    }
    const torch::NoGradGuard no_gradients;
    for (std::size_t k = 0; k < parameters.size(); ++k) parameters[k].sub_(moves[k] * rate);
    double sum = 0;
    for (const torch::Tensor& loss : toy::losses_of(*model, then)) sum += loss.item<double>();
    return sum;
}

TEST_CASE("gates: the gradient of a is the slope of the loss one step ahead") {
    Job job = lone_job();
    job.gate_initial = -0.7;
    LoneWorker worker = lone_worker<Residual<false>>(job);
    std::optional<Rows> before;
    for (std::uint32_t batch = 0; batch < 4; ++batch) {
        const Rows now = worker.weights;
        const Rows pushed = worker.step(batch);
        for (const std::size_t task : {0U, 1U}) {
            const std::string name = task == 0 ? "gates.branch.shape" : "gates.branch.colour";
            REQUIRE(pushed.at(name).size() == 1);
            const double found = pushed.at(name)[0];
            if (!before) {
                CHECK(found == 0);  // nothing to look back to
                continue;
            }
            std::vector<double> a = {before->at("gates.branch.shape")[0],
                                     before->at("gates.branch.colour")[0]};
            const double at = a[task];
            constexpr double kApart = 1e-3;
            const auto loss_at = [&](double value) {
                a[task] = value;
                return loss_ahead(*before, a, job.rule.learning_rate, worker.samples_of(batch - 1),
                                  worker.samples_of(batch));
            };
            const double slope = (loss_at(at + kApart) - loss_at(at - kApart)) / (2 * kApart);
            INFO(name << " batch " << batch);
            CHECK(std::abs(slope) > 1e-6);
            CHECK(found == Approx(slope).epsilon(1e-4));
        }
        before = now;
    }
    CHECK(worker.weights.at("gates.branch.shape")[0] != -0.7F);
}

TEST_CASE("gates: forward nothing changes, and on the way back each task has a scale of its own") {
    Job job = lone_job();
    job.gate_initial = -1;
    EngineOptions options = toy::options_for(job);
    const auto gated = toy::make<Residual<true>>(options);
    options.gates = false;
    const auto off = toy::make<Residual<true>>(options);
    REQUIRE(gated.has_value());
    const float wide_open = 3;
    const std::size_t other = toy::index_of(**gated, "gates.branch.colour");
    (*gated)->load(other, 0, std::as_bytes(std::span(&wide_open, 1)));
    const auto a = (*gated)->gradients(toy::request({0b11}));
    const auto b = (*off)->gradients(toy::request({0b11}));
    REQUIRE(a.has_value());
    CHECK(a->losses == b->losses);
    const double scales[] = {sigmoid(-1), sigmoid(3)};
    for (std::uint32_t t = 0; t < 2; ++t) {
        for (const char* name : {"branch.weight", "heads.shape.weight", "heads.colour.bias"}) {
            const std::size_t k = toy::index_of(**gated, name);
            const float* x = a->gradients->gradient(TaskId{t}, k);
            const float* y = b->gradients->gradient(TaskId{t}, k);
            REQUIRE((x == nullptr) == (y == nullptr));
            const double scale = std::string(name) == "branch.weight" ? scales[t] : 1.0;
            for (std::size_t e = 0; x && e < (*gated)->tensor(k).size(); ++e) {
                CHECK(x[e] == Approx(scale * y[e]).epsilon(1e-5).margin(1e-9));
            }
        }
    }
}

TEST_CASE("gates: an a is a tensor of one task, and what is gated follows from the graph") {
    EngineOptions options;
    options.gate_initial = -2.5;
    const auto engine = toy::make<Residual<true>>(options);
    REQUIRE(engine.has_value());
    const ModelDescription& model = (*engine)->description();
    const std::size_t shape = toy::index_of(**engine, "gates.branch.shape");
    CHECK(model.tensors[shape].owners.bits == 0b01);
    CHECK((*engine)->tensor(shape)[0] == -2.5F);
    REQUIRE(model.gates.size() == 2);
    CHECK(model.gates[0].tensor == shape);
    CHECK(model.gates[1].task == TaskId{1});
    for (const GateDescription& gate : model.gates) {
        // The trunk is reached around the branch as well, heads are not behind it.
        std::vector<std::string> names;
        for (const std::uint32_t k : gate.gated) names.push_back(model.tensors[k].name);
        CHECK(names == std::vector<std::string>{"branch.weight", "branch.bias"});
    }
    const auto read = model_description_from_json(to_json(model));
    REQUIRE(read.has_value());
    CHECK(read->gates[1].gated == model.gates[1].gated);
}

TEST_CASE("gates: off they are frozen, pass everything and learn nothing") {
    Job job = lone_job();
    job.gates_enabled = false;
    LoneWorker worker = lone_worker<Residual<true>>(job);
    CHECK(worker.description().gates.empty());
    for (std::uint32_t batch = 0; batch < 3; ++batch) {
        CHECK(worker.step(batch).count("gates.branch.shape") == 0);
    }
    CHECK(worker.weights.at("gates.branch.shape")[0] == -2.0F);
    Job frozen = lone_job();
    frozen.frozen = {"gates.*"};  // on, and kept where they are
    LoneWorker kept = lone_worker<Residual<true>>(frozen);
    REQUIRE(kept.description().gates.size() == 2);
    for (std::uint32_t batch = 0; batch < 3; ++batch) kept.step(batch);
    CHECK(kept.weights.at("gates.branch.shape")[0] == -2.0F);
    CHECK(kept.weights.at("branch.weight") != worker.weights.at("branch.weight"));
}

TEST_CASE("gates: a computation that is never combined leaves no trace in what they learn") {
    LoneWorker one = lone_worker<Residual<false>>(lone_job());
    LoneWorker other = lone_worker<Residual<false>>(lone_job());
    one.step(0);
    other.step(0);
    one.compute(3);  // cancelled
    CHECK(one.step(1) == other.step(1));
    CHECK(one.hash == other.hash);
}

TEST_CASE("gates: workers that share an engine learn each from its own steps") {
    const Job job = lone_job();
    const auto pool = EnginePool::create(1, [&]() -> Result<std::unique_ptr<Engine>> {
        auto engine = toy::make<Residual<false>>(toy::options_for(job));
        if (!engine) return engine.error();
        return std::unique_ptr<Engine>(std::move(*engine));
    });
    REQUIRE(pool.has_value());
    LoneWorker a((*pool)->engine(), job);
    LoneWorker b((*pool)->engine(), job);
    LoneWorker alone = lone_worker<Residual<false>>(job);
    for (std::uint32_t batch = 0; batch < 3; ++batch) {
        auto of_a = a.compute(batch);
        b.step(3 - batch);
        CHECK(a.combine(std::move(of_a)) == alone.combine(alone.compute(batch)));
    }
}

// One task's head goes past the gate.
class OneGated : public Residual<true> {
  public:
    explicit OneGated(const ModelOptions& options) : Residual<true>(options) {
        side_ = register_module("side", torch::nn::Linear(6, 2));
    }
    std::vector<torch::Tensor> forward(const Batch& batch) override {
        auto outputs = Residual<true>::forward(batch);
        outputs[1] = side_(batch.input());
        return outputs;
    }

  private:
    torch::nn::Linear side_{nullptr};
};

TEST_CASE("gates: the a of a task that never passes the gate is frozen") {
    EngineOptions options;
    options.frozen = {"heads.colour.*"};
    const auto engine = toy::make<OneGated>(options);
    INFO((engine ? "" : engine.error().text));
    REQUIRE(engine.has_value());
    const ModelDescription& model = (*engine)->description();
    CHECK_FALSE(model.tensors[toy::index_of(**engine, "gates.branch.shape")].frozen);
    CHECK(model.tensors[toy::index_of(**engine, "gates.branch.colour")].frozen);
    CHECK(model.gates.size() == 1);
}

class TwoAlike : public Residual<true> {
  public:
    explicit TwoAlike(const ModelOptions& options) : Residual<true>(options) { add_gate("branch"); }
};

TEST_CASE("gates: two of one name are refused, and so is representation space") {
    const auto twice = toy::make<TwoAlike>();
    REQUIRE_FALSE(twice.has_value());
    CHECK_THAT(twice.error().text, Catch::Contains("add_gate(\"branch\"): there is such a gate"));
    Job job = lone_job();
    job.conflict_space = ConflictSpace::representation;
    const auto engine = toy::make<Residual<true>>(toy::options_for(job));
    REQUIRE(engine.has_value());
    const auto plan = make_plan((*engine)->description(), job);
    REQUIRE(plan.has_error());
    CHECK(plan.error().code == ErrorCode::bad_job);
    CHECK_THAT(plan.error().text, Catch::Contains("gates.enabled = false"));
}

}  // namespace
}  // namespace detente
