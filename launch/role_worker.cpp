// A worker: its engine computes on the loop's compute thread, its state machine runs on the main
// thread.
#include <fmt/core.h>

#include <filesystem>

#include "common/build_id.h"
#include "common/ledger_controls.h"
#include "common/partition/layers.h"
#include "common/runtime/zmq/loop.h"
#include "launch/collective_backend.h"
#include "launch/describe.h"
#include "launch/gpu.h"
#include "launch/machine.h"
#include "launch/role_ledger.h"
#include "launch/role_link.h"
#include "launch/run_directory.h"
#include "launch/worker_vectors.h"
#include "worker/engine_computer.h"
#include "worker/worker.h"

namespace detente {

namespace {

// "LibTorch 2.13.0, CPU capability AVX2" → "LibTorch 2.13.0": processors may differ.
std::string without_machine(const std::string& versions) {
    return versions.substr(0, versions.find(','));
}

// What differs between the model as it is here and as the run was planned with it; empty = nothing.
std::string difference(const ModelDescription& mine, const ModelDescription& planned,
                       const std::string& there) {
    const auto same = [](const TensorDescription& a, const TensorDescription& b) {
        return a.name == b.name && a.shape == b.shape && a.owners == b.owners;
    };
    if (mine.tasks != planned.tasks || mine.training_samples != planned.training_samples ||
        !std::equal(mine.tensors.begin(), mine.tensors.end(), planned.tensors.begin(),
                    planned.tensors.end(), same)) {
        return fmt::format("it describes another model than on {}: other tensors, tasks or samples",
                           there);
    }
    if (without_machine(mine.versions) != without_machine(planned.versions)) {
        return fmt::format("it computes with {}, on {} with {}", without_machine(mine.versions),
                           there, without_machine(planned.versions));
    }
    if (mine.library != planned.library) {
        return fmt::format("its file's checksum is {}, on {} it is {}", mine.library, there,
                           planned.library);
    }
    return "";
}

// Loads the model and checks that it is the one the run was planned with.
Result<std::unique_ptr<Engine>> load_model(const Briefing& briefing, const std::string& device,
                                           const std::string& log_dir,
                                           const std::string& coordinator_host) {
    EngineOptions options = engine_options_of(*briefing.job);
    options.device = device;
    std::error_code ignored;
    std::filesystem::create_directories(log_dir, ignored);
    options.log_dir = log_dir;
    auto engine = load_engine(briefing.job->model_library, options);
    if (engine.has_error()) return engine;
    ModelDescription mine = (*engine)->description();
    auto checksum = library_checksum(briefing.job->model_library);
    if (checksum.has_error()) return checksum.error();
    mine.library = std::move(*checksum);
    const std::string other = difference(mine, briefing.model, coordinator_host);
    if (!other.empty()) {
        return fail(ErrorCode::bad_model,
                    fmt::format("{} on {}: {}; use the same library and dataset on every host",
                                briefing.job->model_library, this_host(), other));
    }
    return engine;
}

// The folder for what is kept as vectors; empty: nothing is. Goes on from what a checkpoint has.
Result<std::string> keep_vectors(EngineComputer& computer, WorkerId id, const Briefing& briefing,
                                 const std::string& resume, RoleLink& link) {
    if (!keeps_vectors(*briefing.job, briefing.model)) return std::string();
    const std::string folder = RunDirectory{link.control().run_dir()}.checkpoint_dir();
    forget_last_word(id, folder);
    if (resume.empty()) return folder;
    const auto unused = restore_vectors(computer, id, resume);
    if (unused.has_error()) return unused.error();
    if (!unused->empty()) link.log().write(LogLevel::warning, *unused);
    return folder;
}

}  // namespace

ExitCode run_worker(std::unique_ptr<ControlClient> control, const RoleOptions& options) {
    const WorkerId id{options.rank};
    const NodeId self = node_of(id);
    RoleLink link(std::move(control), options);
    if (const auto job = link.begin(); job.has_error()) return link.give_up(job.error());
    link.speak_for(self);
    if (auto log = link.open_log(to_string(self)); log.has_error()) {
        return link.give_up(log.error());
    }
    Endpoint endpoint;
    endpoint.node = self;
    endpoint.incarnation = options.incarnation;
    endpoint.host = this_host();
    link.hello(self, std::move(endpoint), false);
    link.announce("waiting for the other processes");
    const auto briefing = link.wait_for_welcome();
    if (briefing.has_error()) return link.give_up(briefing.error());

    link.announce("loading the model and its dataset");
    const std::string run_dir = link.control().run_dir();
    // Of two workers of a host none has the other's GPU, as long as there is one for each.
    const std::uint32_t local = options.local_rank.value_or(options.rank);
    const auto device = device_of(*briefing->job, local);
    if (device.has_error()) return link.give_up(device.error());
    auto engine =
        load_model(*briefing, *device, fmt::format("{}/tasks/worker-{}", run_dir, id.value),
                   link.control().coordinator_host());
    if (engine.has_error()) return link.give_up(engine.error());
    EngineComputer computer(std::move(*engine), briefing->plan, briefing->job->seed,
                            briefing->job->gradient_hashes);
    const auto methods = computer.use_methods_of(*briefing->job);
    if (methods.has_error()) return link.give_up(methods.error());
    const auto kept = keep_vectors(computer, id, *briefing, options.resume, link);
    if (kept.has_error()) return link.give_up(kept.error());

    ZmqLoopOptions loop_options;
    loop_options.self = self;
    loop_options.incarnation = options.incarnation;
    loop_options.generation = link.control().generation();
    loop_options.build = build_id();
    loop_options.host = this_host();
    loop_options.transport = briefing->job->transport;
    loop_options.checksum = briefing->job->checksum;
    loop_options.computer = &computer;
    loop_options.control = &link.control();
    loop_options.log = link.log().sink();
    auto loop = ZmqLoop::open(std::move(loop_options));
    if (loop.has_error()) return link.give_up(loop.error());
    const std::string machine =
        machine_description(briefing->job->threads, computer.engine().description().versions);
    const auto ledger = open_ledger(**loop, link.control(), briefing->job->name, machine);
    if (ledger.has_error()) return link.give_up(ledger.error());
    std::unique_ptr<NodeReducer> reducer;
    if (!briefing->job->sync_layers.empty()) {
        // The same at all workers of a run, and at no other's.
        CollectivePlace place;
        place.run =
            fmt::format("{} {}", link.control().generation().value, link.control().run_dir());
        place.tasks = briefing->model.tasks.size();
        place.device = *device;
        place.local = local;
        auto backend = make_collectives(*briefing->job, *briefing->plan, place, process_variable);
        if (backend.has_error()) return link.give_up(backend.error());
        const SyncBackend by = briefing->job->sync_backend;
        if (by == SyncBackend::mpi || by == SyncBackend::nccl) {
            const auto told = (*ledger)->append({Time{}, summed_by((*backend)->name())});
            if (told.has_error()) return link.give_up(told.error());
        }
        reducer = std::make_unique<NodeReducer>(std::move(*backend), id, **loop);
        (*loop)->attach(*reducer);
    }
    WorkerSetup setup;
    setup.id = id;
    setup.job = briefing->job;
    setup.plan = briefing->plan;
    setup.tasks = briefing->model.tasks;
    setup.layers = shared_layers(*briefing->plan, briefing->model).names;
    setup.training_samples = briefing->model.training_samples;
    setup.checkpoint_dir = *kept;
    auto node = Worker::create(std::move(setup));
    if (node.has_error()) return link.give_up(node.error());
    link.hand_over(self, **loop, briefing->welcome);
    const Outcome outcome = (*loop)->run(**node);
    return link.end({outcome});
}

}  // namespace detente
