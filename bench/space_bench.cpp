// A worker's step (gradients, weights, combined push) of a model library in both spaces of
// conflict.space: how much one backward through the trunk saves beside one per task.
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "bench/report.h"
#include "worker/engine_computer.h"
#include "worker/resolver.h"

namespace detente::bench {
namespace {

template <class T>
T value_or_exit(Result<T> result) {
    if (result) return std::move(*result);
    std::fprintf(stderr, "space_bench: %s\n", result.error().text.c_str());
    std::exit(2);
}

// One worker in one space; a step costs what it costs in a job, without the servers.
class Stepping {
  public:
    Stepping(const std::string& library, ConflictSpace space) {
        job_.batch_samples = 64;
        job_.aggregator.name = "mgda";
        job_.conflict_space = space;
        EngineOptions options;
        options.representation = space == ConflictSpace::representation;
        auto engine = value_or_exit(load_engine(library, options));
        tasks_ = engine->description().tasks.size();
        plan_ = std::make_shared<Plan>(value_or_exit(make_plan(engine->description(), job_)));
        computer_ = std::make_unique<EngineComputer>(std::move(engine), plan_, job_.seed, true);
        if (auto used = computer_->use_methods_of(job_); !used) value_or_exit<int>(used.error());
        resolver_.emplace(value_or_exit(Resolver::create(job_, tasks_)));
        for (const Block& block : plan_->blocks) {
            if (block.trainable()) layout_.push_back({block.id});
        }
    }
    std::size_t tasks() const { return tasks_; }

    void operator()() {
        GradientWork work;
        work.batch = {0, step_++ % 256, 1};
        work.batch_samples = job_.batch_samples;
        for (std::uint32_t task = 0; task < tasks_; ++task) work.tasks.insert(TaskId{task});
        resolver_->prepare(work);
        auto gradients = value_or_exit(computer_->run(work, never_, {}));
        auto combine = value_or_exit(
            resolver_->resolve(std::move(std::get<GradientOutcome>(gradients)), step_));
        combine.layout = layout_;
        value_or_exit(computer_->run(combine, never_, [](std::uint32_t, const Payload&) {}));
    }

  private:
    Job job_;
    std::size_t tasks_ = 0;
    std::shared_ptr<const Plan> plan_;
    std::unique_ptr<EngineComputer> computer_;
    std::optional<Resolver> resolver_;
    std::vector<std::vector<BlockId>> layout_;
    std::uint32_t step_ = 0;
    std::atomic<bool> never_{false};
};

int run(int argc, char** argv) {
    const Options options =
        parse_options(argc, argv, "space_bench LIBRARY: a step in both spaces of conflict.space");
    if (options.rest.size() != 1) {
        std::fprintf(stderr,
                     "usage: space_bench [--json] [--quick] LIBRARY, as in\n"
                     "  space_bench build/release/examples/libmultifashion.so\n");
        return 2;
    }
    Stepping parameters(options.rest[0], ConflictSpace::parameters);
    Stepping representation(options.rest[0], ConflictSpace::representation);
    const std::vector<double> seconds = interleaved_medians(
        {[&] { parameters(); }, [&] { representation(); }}, options.quick ? 5 : 200);
    Report report("A worker's step, mgda, batch 64, one thread", options);
    report.remark("tasks: " + std::to_string(parameters.tasks()));
    report.add({"space parameters", seconds[0] * 1e3, "ms", std::nullopt, ""});
    report.add({"space representation", seconds[1] * 1e3, "ms", seconds[0] * 1e3,
                "limit: the step in parameter space"});
    report.print();
    return 0;
}

}  // namespace
}  // namespace detente::bench

int main(int argc, char** argv) { return detente::bench::run(argc, argv); }
