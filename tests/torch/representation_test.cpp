// Representation space over LibTorch: worked by hand, beside parameter space, by finite
// differences; what is refused.
#include "tests/torch/lone_worker.h"
#include "worker/engine_pool.h"

namespace detente {
namespace {

using toy::lone_job;
using toy::lone_worker;
using toy::LoneWorker;
using toy::ThreeTasks;

// Three tasks on a trunk of two layers, with dropout.
class Deep : public Model {
  public:
    explicit Deep(const ModelOptions&) {
        first_ = register_module("first", torch::nn::Linear(6, 7));
        second_ = register_module("second", torch::nn::Linear(7, 5));
        add_task("shape", torch::nn::Linear(5, 3));
        add_task("colour", torch::nn::Linear(5, 2));
        add_task("size", torch::nn::Linear(5, 4));
        for (const Split split : {Split::training, Split::test}) {
            set_samples(split, ThreeTasks::rows(toy::kTraining),
                        ThreeTasks::classes(toy::kTraining));
        }
    }
    std::vector<torch::Tensor> forward(const Batch& batch) override {
        return heads(second_(torch::tanh(first_(batch.input()))));
    }

  private:
    torch::nn::Linear first_{nullptr};
    torch::nn::Linear second_{nullptr};
};

Job in_representation(const std::string& method) {
    Job job = lone_job(method);
    job.conflict_space = ConflictSpace::representation;
    return job;
}

TEST_CASE("representation: for sum and mean and constant weights the push is parameter space's") {
    for (const char* method : {"sum", "mean", "constant"}) {
        Job job = in_representation(method);
        Job beside = lone_job(method);
        if (job.aggregator.name == "constant") {
            job.aggregator.parameters = beside.aggregator.parameters = {{"weights", "0.3,2,1.1"}};
        }
        LoneWorker a = lone_worker<Deep>(job);
        LoneWorker b = lone_worker<Deep>(beside);
        for (std::uint32_t batch = 0; batch < 3; ++batch) {
            const auto found = a.combine(a.compute(batch));
            const auto expected = b.step(batch);
            a.weights = b.weights;
            REQUIRE(found.size() == expected.size());
            for (const auto& [name, row] : expected) {
                for (std::size_t e = 0; e < row.size(); ++e) {
                    INFO(method << " " << name << " " << e);
                    CHECK(found.at(name)[e] == Approx(row[e]).epsilon(1e-4).margin(1e-6));
                }
            }
        }
    }
}

// z = w·x, one number a sample; task i's loss is Σ s[i]·z, with the s as targets.
class ByHand : public Model {
  public:
    explicit ByHand(const ModelOptions&) {
        const torch::NoGradGuard no_gradients;
        trunk_ =
            register_module("trunk", torch::nn::Linear(torch::nn::LinearOptions(2, 1).bias(false)));
        for (const char* task : {"a", "b"}) {
            torch::nn::Linear head(torch::nn::LinearOptions(1, 1).bias(false));
            head->weight.fill_(1);
            add_task(task, head);
        }
        const torch::Tensor rows = torch::tensor({1.0F, 0.0F, 1.0F, 1.0F}).view({2, 2});
        for (const Split split : {Split::training, Split::test}) {
            set_samples(split, rows, {torch::tensor({1.0F, 0.0F}), torch::tensor({-1.0F, 2.0F})});
        }
    }
    std::vector<torch::Tensor> forward(const Batch& batch) override {
        return heads(trunk_(batch.input()));
    }
    torch::Tensor loss(std::size_t, const torch::Tensor& output,
                       const torch::Tensor& target) override {
        return (output.flatten() * target).sum();
    }
    Score score(std::size_t, const torch::Tensor&, const torch::Tensor& target) override {
        return {0, static_cast<double>(target.numel())};
    }

  private:
    torch::nn::Linear trunk_{nullptr};
};

// Rows at the output [1, 0] and [-1, 2]: G = [[1, -1], [-1, 5]], so PCGrad adds 1/5 of b to a and
// all of a to b: weights 2 and 1.2, [.8, 2.4] at the output, .8·[1, 0] + 2.4·[1, 1] for the trunk.
// In parameter space the rows are [1, 0] and [1, 2], which do not conflict: [2, 2].
TEST_CASE("representation: PCGrad on two samples as worked out by hand and unlike parameters") {
    LoneWorker at_output = lone_worker<ByHand>(in_representation("pcgrad"));
    auto outcome = at_output.compute(0);
    CHECK(outcome.gramian.at(0, 0) == Approx(1));
    CHECK(outcome.gramian.at(0, 1) == Approx(-1));
    CHECK(outcome.gramian.at(1, 1) == Approx(5));
    const auto row = at_output.combine(std::move(outcome)).at("trunk.weight");
    CHECK(row[0] == Approx(3.2));
    CHECK(row[1] == Approx(2.4));
    LoneWorker of_parameters = lone_worker<ByHand>(lone_job("pcgrad"));
    const auto other = of_parameters.combine(of_parameters.compute(0)).at("trunk.weight");
    CHECK(other[0] == Approx(2));
    CHECK(other[1] == Approx(2));
}

TEST_CASE("representation: the push is the gradient of the weighed losses by finite differences") {
    Job job = in_representation("constant");
    job.aggregator.parameters = {{"weights", "0.7,1.9,0.4"}};
    const double weights[] = {0.7, 1.9, 0.4};
    LoneWorker worker = lone_worker<Deep>(job);
    const auto pushed = worker.combine(worker.compute(1));
    for (const char* name : {"first.weight", "second.weight", "second.bias"}) {
        for (const std::size_t element : {0U, 3U}) {
            const auto loss_at = [&](double apart) {
                const auto model = toy::in_double<Deep>(worker.weights);
                const torch::NoGradGuard no_gradients;
                torch::Tensor value = model->named_parameters()[name];
                value.view(-1)[static_cast<std::int64_t>(element)] += apart;
                const auto losses = toy::losses_of(*model, worker.samples_of(1));
                double sum = 0;
                for (std::size_t t = 0; t < 3; ++t) sum += weights[t] * losses[t].item<double>();
                return sum;
            };
            const double slope = (loss_at(1e-4) - loss_at(-1e-4)) / 2e-4;
            INFO(name << " " << element);
            CHECK(pushed.at(name)[element] == Approx(slope).epsilon(1e-4).margin(1e-7));
        }
    }
}

TEST_CASE("representation: the global norm is clipped with what the trunk made of the rows") {
    Job job = in_representation("mgda");
    LoneWorker free = lone_worker<Deep>(job);
    const auto whole = free.combine(free.compute(0));
    job.clip_norm = 0.05;
    LoneWorker bound = lone_worker<Deep>(job);
    const auto clipped = bound.combine(bound.compute(0));
    double norm_sq = 0;
    double whole_sq = 0;
    for (const auto& [name, row] : whole) {
        for (std::size_t e = 0; e < row.size(); ++e) {
            whole_sq += double(row[e]) * row[e];
            norm_sq += double(clipped.at(name)[e]) * clipped.at(name)[e];
        }
    }
    REQUIRE(std::sqrt(whole_sq) > 0.05);
    CHECK(std::sqrt(norm_sq) == Approx(0.05).epsilon(1e-5));
    CHECK(clipped.at("first.weight")[2] / whole.at("first.weight")[2] ==
          Approx(0.05 / std::sqrt(whole_sq)).epsilon(1e-4));
}

TEST_CASE("representation: the hash is of what was computed and the same for the same") {
    LoneWorker a = lone_worker<Deep>(in_representation("mgda"));
    LoneWorker b = lone_worker<Deep>(in_representation("mgda"));
    a.combine(a.compute(0));
    b.combine(b.compute(0));
    CHECK(a.hash == b.hash);
    b.weights.at("first.weight")[0] += 1e-3F;
    b.combine(b.compute(0));
    CHECK(a.hash != b.hash);
    // A change that only the trunk's own gradient would show: of rows that are the same.
    CHECK(a.hash > 1);
}

// The graph of one waits while the other's weights are in the engine.
TEST_CASE("representation: workers that share engines get the bits they would get alone") {
    const Job job = in_representation("mgda");
    const auto pool = EnginePool::create(1, [&]() -> Result<std::unique_ptr<Engine>> {
        auto engine = toy::make<Deep>(toy::options_for(job));
        if (!engine) return engine.error();
        return std::unique_ptr<Engine>(std::move(*engine));
    });
    REQUIRE(pool.has_value());
    LoneWorker a((*pool)->engine(), job);
    LoneWorker b((*pool)->engine(), job);
    LoneWorker alone = lone_worker<Deep>(job);
    for (float& value : b.weights.at("second.weight")) value = 3;
    for (std::uint32_t batch = 0; batch < 3; ++batch) {
        auto of_a = a.compute(batch);
        b.step(batch);
        CHECK(a.combine(std::move(of_a)) == alone.combine(alone.compute(batch)));
    }
}

template <class M>
std::string space_refusal(std::vector<std::string> frozen = {}) {
    EngineOptions options;
    options.representation = true;
    options.frozen = std::move(frozen);
    const auto engine = toy::make<M>(options);
    if (engine) return "";
    CHECK(engine.error().code == ErrorCode::bad_model);
    return engine.error().text;
}

class Twice : public Deep {
  public:
    using Deep::Deep;
    std::vector<torch::Tensor> forward(const Batch& batch) override {
        Deep::forward(batch);
        return Deep::forward(batch);
    }
};

class PastTheCut : public Deep {
  public:
    explicit PastTheCut(const ModelOptions& options) : Deep(options) {
        late_ = register_module("late", torch::nn::Linear(6, 1));
    }
    std::vector<torch::Tensor> forward(const Batch& batch) override {
        auto outputs = Deep::forward(batch);
        for (int t = 0; t < 2; ++t) outputs[t] = outputs[t] * late_(batch.input());
        return outputs;
    }

  private:
    torch::nn::Linear late_{nullptr};
};

class AroundTheCut : public Model {
  public:
    explicit AroundTheCut(const ModelOptions&) {
        trunk_ = register_module("trunk", torch::nn::Linear(6, 4));
        add_task("a", torch::nn::Linear(4, 3));
        add_task("b", torch::nn::Linear(4, 2));
        const auto classes = ThreeTasks::classes(20);
        for (const Split split : {Split::training, Split::test}) {
            set_samples(split, ThreeTasks::rows(20), {classes[0], classes[1]});
        }
    }
    std::vector<torch::Tensor> forward(const Batch& batch) override {
        auto outputs = heads(trunk_(batch.input()));
        outputs[1] = outputs[1] + trunk_->weight.mean();
        return outputs;
    }

  private:
    torch::nn::Linear trunk_{nullptr};
};

TEST_CASE("representation: what cannot be cut there is refused and named") {
    CHECK_THAT(space_refusal<ThreeTasks>(), Catch::Contains("model Toy does not call heads()"));
    CHECK_THAT(space_refusal<Twice>(), Catch::Contains("calls heads() 2 times"));
    CHECK_THAT(space_refusal<PastTheCut>(),
               Catch::Contains("\"late.weight\", which shape and colour share past"));
    CHECK_THAT(space_refusal<AroundTheCut>(),
               Catch::Contains("\"trunk.weight\" in its trunk") && Catch::Contains("loss of b"));
    CHECK_THAT(space_refusal<Deep>({"first.*", "second.*"}),
               Catch::Contains("no trainable tensor below its heads"));
    CHECK(space_refusal<Deep>({"first.*"}).empty());
}

TEST_CASE("representation: a task cannot be kept off a part of the trunk") {
    Job job = in_representation("mgda");
    job.tasks.push_back({"colour", {"first.*"}});
    const auto engine = toy::make<Deep>(toy::options_for(job));
    REQUIRE(engine.has_value());
    const auto plan = make_plan((*engine)->description(), job);
    REQUIRE(plan.has_error());
    CHECK_THAT(plan.error().text, Catch::Contains("takes tensor 'first.weight' from some"));
}

}  // namespace
}  // namespace detente
