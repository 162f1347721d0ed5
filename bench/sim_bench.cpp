// How many events a simulation handles per second of processor time when computing costs nothing:
// real shards and workers, a network without faults, one block of 16 numbers per shard. Small: 16
// workers on 4 shards; large: 10,000 on 100. With invariants off and on.
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <string>

#include "bench/report.h"
#include "common/random.h"
#include "common/runtime/sim/world.h"
#include "launch/shard_invariants.h"
#include "ps/shard.h"
#include "worker/worker.h"

namespace detente::bench {
namespace {

constexpr std::uint64_t kElements = 16;

// Zeros for everything, without an engine.
class NullComputer final : public Computer {
  public:
    explicit NullComputer(std::shared_ptr<const Plan> plan) : plan_(std::move(plan)) {}
    WorkResult run(const Work& work, const std::atomic<bool>& /*cancelled*/,
                   const std::function<void(std::uint32_t, Payload)>& part) override {
        if (std::holds_alternative<GradientWork>(work)) {
            GradientOutcome outcome;
            outcome.losses = {0};
            outcome.gramian = Gramian(1);
            outcome.exclusive_norms_sq = {0};
            outcome.samples = 1;
            return {std::move(outcome)};
        }
        if (const auto* combine = std::get_if<CombineWork>(&work)) {
            for (std::uint32_t i = 0; i < combine->layout.size(); ++i) {
                part(i, zeros(combine->layout[i].size()));
            }
            return {CombineOutcome{}};
        }
        for (const Block& block : plan_->blocks) {
            part(static_cast<std::uint32_t>(block.id.value), zeros(1));
        }
        return {InitialOutcome{}};
    }

  private:
    static Payload zeros(std::size_t blocks) {
        auto buffer = std::make_shared<AlignedBuffer>(blocks * kElements * sizeof(float));
        std::memset(buffer->data(), 0, buffer->size());
        return payload_of(std::move(buffer));
    }
    std::shared_ptr<const Plan> plan_;
};

// Says what starts a cluster, and hears the rest out.
class Starter final : public Node {
  public:
    explicit Starter(const Job& job) : job_(job) {}
    void on(Event&& event, Time /*now*/, Effects& effects) override {
        if (std::holds_alternative<Started>(event)) {
            for (std::uint32_t i = 0; i < job_.shards(); ++i) {
                send(effects, node_of(ShardId{i}), Welcome{});
            }
            for (std::uint32_t i = 0; i < job_.workers; ++i) {
                Welcome welcome;
                welcome.initialise = i == 0;
                send(effects, node_of(WorkerId{i}), std::move(welcome));
            }
        }
        const auto* received = std::get_if<Received>(&event);
        if (received == nullptr || !std::holds_alternative<Ready>(received->message.body)) return;
        if (++ready_ != job_.shards() + job_.workers) return;
        for (std::uint32_t i = 0; i < job_.workers; ++i) send(effects, node_of(WorkerId{i}), Go{});
    }
    bool all_ready() const { return ready_ == job_.shards() + job_.workers; }

  private:
    static void send(Effects& effects, NodeId to, Body body) {
        Message message;
        message.body = std::move(body);
        effects.send(to, std::move(message));
    }
    Job job_;
    std::uint32_t ready_ = 0;
};

struct Case {
    std::string name;
    std::uint32_t workers = 0;
    std::uint32_t shards = 0;
    std::uint64_t events = 0;
    double aim_per_s = 0;
};

Job job_of(const Case& one) {
    Job job;
    job.servers = one.shards;
    job.workers = one.workers;
    job.lease_batches = 64;
    job.policy = {"async", {}};
    job.aggregator.name = "sum";
    job.gradient_hashes = false;
    return job;
}

ModelDescription model_of(std::uint32_t shards) {
    ModelDescription model;
    model.model = "null";
    model.tasks = {"task0"};
    model.training_samples = 1U << 30U;
    TaskSet all;
    all.insert(TaskId{0});
    for (std::uint32_t i = 0; i < shards; ++i) {
        model.tensors.push_back({"w" + std::to_string(i), {kElements}, all, false});
    }
    return model;
}

double peak_mib() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        if (word != "VmHWM:") continue;
        double kib = 0;
        status >> kib;
        return kib / 1024;
    }
    return 0;
}

double processor_s() {
    timespec now{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

class Cluster {
  public:
    Cluster(const Case& one, bool invariants)
        : job_(std::make_shared<Job>(job_of(one))), world_(options()) {
        const ModelDescription model = model_of(one.shards);
        plan_ = std::make_shared<const Plan>(*make_plan(model, *job_));
        auto starter = std::make_unique<Starter>(*job_);
        starter_ = starter.get();
        for (std::uint32_t i = 0; i < job_->shards(); ++i) {
            ShardSetup setup;
            setup.id = ShardId{i};
            setup.job = job_;
            setup.plan = plan_;
            setup.training_samples = model.training_samples;
            world_.add(node_of(ShardId{i}), Incarnation{1}, *Shard::create(std::move(setup)));
        }
        computer_ = std::make_unique<NullComputer>(plan_);
        for (std::uint32_t i = 0; i < job_->workers; ++i) {
            WorkerSetup setup;
            setup.id = WorkerId{i};
            setup.job = job_;
            setup.plan = plan_;
            setup.tasks = model.tasks;
            world_.add(node_of(WorkerId{i}), Incarnation{1}, *Worker::create(std::move(setup)),
                       computer_.get());
        }
        world_.add(kCoordinator, Incarnation{1}, std::move(starter));
        if (!invariants) return;
        world_.observe([this](NodeId id, Time) {
            if (id.role != Role::shard) return;
            const auto wrong = invariants_.check(id, dynamic_cast<Shard&>(world_.node(id)));
            if (wrong) broken = *wrong;
        });
    }

    // Events per second of processor time, in training: the machine may be shared.
    double measure(std::uint64_t events) {
        while (!starter_->all_ready()) world_.step();
        run_to(world_.events() + events / 5);
        const std::uint64_t from = world_.events();
        const double began = processor_s();
        run_to(from + events);
        return static_cast<double>(world_.events() - from) / (processor_s() - began);
    }
    std::string broken;

  private:
    sim::WorldOptions options() {
        sim::WorldOptions options;
        options.compute_time = [](NodeId node, const Work& work, std::uint64_t count) {
            if (!std::holds_alternative<GradientWork>(work)) return Nanos{0};
            Random random(random_key(1, Purpose::compute_time, {node.index, count}));
            return Nanos(static_cast<std::int64_t>(2e7 * random.exponential()));
        };
        options.record = [this](NodeId, Incarnation, const LedgerEntry&) { ++recorded_; };
        options.log = [](NodeId, Time, LogLevel, const std::string&) {};
        return options;
    }
    void run_to(std::uint64_t events) {
        while (world_.events() < events && world_.step()) {
        }
    }

    std::shared_ptr<Job> job_;
    std::shared_ptr<const Plan> plan_;
    std::unique_ptr<NullComputer> computer_;
    Starter* starter_ = nullptr;
    ShardInvariants invariants_;
    std::uint64_t recorded_ = 0;
    sim::World world_;
};

int run(int argc, char** argv) {
    const Options options = parse_options(
        argc, argv, "Events per second of simulated clusters whose computing costs nothing.");
    Report report("simulator", options);
    report.remark(
        "per second of processor time on one thread; the limit is what is aimed at; memory is the "
        "process's peak so far");
    const std::vector<Case> cases = {{"16 workers x 4 shards", 16, 4, 4'000'000, 2e6},
                                     {"10000 workers x 100 shards", 10'000, 100, 6'000'000, 1e6}};
    for (const Case& one : cases) {
        for (const bool invariants : {false, true}) {
            const std::string name = one.name + (invariants ? ", invariants on" : "");
            if (!options.wants(name) || (options.quick && one.workers > 16)) continue;
            Cluster cluster(one, invariants);
            const double rate = cluster.measure(options.quick ? 100'000 : one.events);
            if (!cluster.broken.empty()) {
                std::fprintf(stderr, "sim_bench: %s: %s\n", name.c_str(), cluster.broken.c_str());
                return 1;
            }
            report.add({name, rate / 1e6, "M events/s", one.aim_per_s / 1e6, ""});
            constexpr double kMostMib = 2048;
            report.add({name + ", memory", peak_mib(), "MiB", kMostMib, ""});
        }
    }
    report.print();
    return 0;
}

}  // namespace
}  // namespace detente::bench

int main(int argc, char** argv) { return detente::bench::run(argc, argv); }
