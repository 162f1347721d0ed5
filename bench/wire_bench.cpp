// What the wire costs: real shards in processes of their own, workers that only push and pull,
// beside a plain socket that moves the same bytes in its best chunk and adds them in place. Rounds
// alternate between the two, so that both see the same minutes of a shared machine.
#include <sys/resource.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/report.h"
#include "bench/wire_processes.h"
#include "bench/wire_worker.h"
#include "common/runtime/zmq/allocator.h"

namespace detente::bench {
namespace {

constexpr std::uint64_t kKiB = 1U << 10U;
constexpr std::uint64_t kMiB = 1U << 20U;
using Kind = WireCommand::Kind;

std::string size_name(std::uint64_t bytes) {
    return bytes < kMiB ? std::to_string(bytes / kKiB) + " KiB"
                        : std::to_string(bytes / kMiB) + " MiB";
}
std::string name_of(TransportKind transport) {
    return transport == TransportKind::tcp ? "tcp" : "ipc";
}
double own_cpu_s() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& value) {
        return static_cast<double>(value.tv_sec) + static_cast<double>(value.tv_usec) * 1e-6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Servers, workers, and as many plain sockets, all on the same bytes.
class Wire {
  public:
    explicit Wire(const WireSetup& setup) : setup_(setup) {
        for (std::uint32_t i = 0; i < setup.servers; ++i) {
            servers_.push_back(start_server(setup, i));
        }
        for (std::uint32_t i = 0; i < setup.workers; ++i) {
            workers_.push_back(std::make_unique<WireWorker>(setup, i, servers_));
            raw_.push_back(start_raw(setup.transport, setup.bytes()));
            raw_clients_.push_back(
                std::make_unique<RawClient>(setup.transport, raw_.back(), setup.bytes()));
        }
        workers_.front()->run({Kind::initialise, 1, 1});
    }
    // Seconds until the slowest worker is done.
    double run(WireCommand command) {
        std::vector<std::future<double>> ends;
        for (auto& worker : workers_) ends.push_back(worker->start(command));
        double slowest = 0;
        for (auto& end : ends) slowest = std::max(slowest, end.get());
        return slowest;
    }
    double raw(void (RawClient::*what)(std::uint64_t, std::uint64_t), std::uint64_t bytes,
               std::uint64_t chunk_bytes, std::uint32_t times) {
        // Within each thread, as ours is within the loop: starting one is no part of the limit.
        std::vector<double> seconds(raw_clients_.size());
        std::vector<std::thread> threads;
        for (std::size_t i = 0; i < seconds.size(); ++i) {
            threads.emplace_back([&, i, what] {
                seconds[i] = seconds_of([&] {
                    for (std::uint32_t n = 0; n < times; ++n) {
                        ((*raw_clients_[i]).*what)(bytes, chunk_bytes);
                    }
                });
            });
        }
        for (auto& thread : threads) thread.join();
        return *std::max_element(seconds.begin(), seconds.end());
    }
    double cpu_s() const {
        double sum = own_cpu_s();
        for (const Child& server : servers_) sum += server.cpu_s();
        return sum;
    }
    double raw_cpu_s() const {
        double sum = own_cpu_s();
        for (const Child& raw : raw_) sum += raw.cpu_s();
        return sum;
    }
    const Child& server() const { return servers_.front(); }

  private:
    WireSetup setup_;
    std::vector<Child> servers_;
    std::vector<Child> raw_;
    std::vector<std::unique_ptr<RawClient>> raw_clients_;
    std::vector<std::unique_ptr<WireWorker>> workers_;
};

struct Measured {
    double seconds = 0;
    double limit_s = 0;  // of the best chunk
};

// The quarter of the rounds that the rest of the machine disturbed least ends here. For both sides
// alike: a foreign process takes a core from four threads of ours or two of theirs.
double lower_quartile(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 4];
}

// Alternates ours and the plain socket's, one chunk size after the other.
Measured measure(Wire& wire, WireCommand command, std::uint64_t step_bytes, std::size_t rounds) {
    const std::uint64_t bytes = step_bytes * command.steps;
    std::vector<double> ours;
    std::vector<std::pair<std::uint64_t, std::vector<double>>> raws;
    for (const std::uint64_t chunk : {64 * kKiB, 256 * kKiB, kMiB}) {
        raws.push_back({std::min(chunk, step_bytes), {}});
        if (chunk >= step_bytes) break;
    }
    const bool streams = command.window > 1 || command.steps == 1;
    for (std::size_t round = 0; round <= rounds; ++round) {
        const double seconds = wire.run(command);
        if (round > 0) ours.push_back(seconds);
        for (auto& [chunk, seconds_of_chunk] : raws) {
            const auto what = command.kind == Kind::push   ? &RawClient::push
                              : command.kind == Kind::pull ? &RawClient::pull
                                                           : &RawClient::push_pull;
            const double raw_s = streams ? wire.raw(what, bytes, chunk, 1)
                                         : wire.raw(what, step_bytes, chunk, command.steps);
            if (round > 0) seconds_of_chunk.push_back(raw_s);
        }
    }
    Measured measured{lower_quartile(ours), std::numeric_limits<double>::max()};
    for (const auto& [chunk, seconds] : raws) {
        measured.limit_s = std::min(measured.limit_s, lower_quartile(seconds));
    }
    return measured;
}

void throughput(Report& report, const Options& options, WireSetup setup, std::size_t rounds) {
    const std::string shape =
        std::to_string(setup.servers) + "x" + std::to_string(setup.workers) + " ";
    const std::string what = shape + name_of(setup.transport) + " " + size_name(setup.bytes());
    const auto wanted = {"push " + what, "pull " + what, "CPU of push " + what,
                         "CPU of pull " + what};
    if (std::none_of(wanted.begin(), wanted.end(),
                     [&](const std::string& name) { return options.wants(name); }))
        return;
    Wire wire(setup);
    const std::uint64_t bytes = setup.bytes();
    const double moved = static_cast<double>(setup.workers) * 1e-9;
    // Enough steps for some 64 MiB, at most 256; several on their way where one is small.
    const auto steps =
        static_cast<std::uint32_t>(std::clamp<std::uint64_t>(64 * kMiB / bytes, 1, 256));
    const auto window =
        static_cast<std::uint32_t>(std::clamp<std::uint64_t>(16 * kMiB / bytes, 1, 8));
    const auto add = [&](const std::string& name, const WireCommand& command) {
        if (!options.wants(name + what)) return;
        // One small pull takes less time than the scheduler's whims: many of them.
        const bool brief = bytes * command.steps < 16 * kMiB;
        const Measured took = measure(wire, command, bytes, brief ? rounds * 8 : rounds);
        const double total = static_cast<double>(bytes) * command.steps * moved;
        report.add({name + what, total / took.seconds, "GB/s", total / took.limit_s, ""});
    };
    add("push ", {Kind::push, steps, window});
    add("pull ", {Kind::pull, 1, 1});
    // Of as many bytes as make the clock's grain small, in the same way as they were timed.
    const auto add_cpu = [&](const std::string& name, WireCommand command,
                             void (RawClient::*raw)(std::uint64_t, std::uint64_t)) {
        if (!options.wants("CPU of " + name + what)) return;
        const auto times = static_cast<std::uint32_t>(
            std::clamp<std::uint64_t>(512 * kMiB / bytes, 8, options.quick ? 64 : 8192));
        const double gigabytes = static_cast<double>(bytes) * times * moved;
        const bool pulls = command.kind == Kind::pull;  // a command of them is one pull
        command.steps = pulls ? 1 : times;
        const double before = wire.cpu_s();
        for (std::uint32_t n = 0; n < (pulls ? times : 1); ++n) wire.run(command);
        const double ours_s = wire.cpu_s() - before;
        const std::uint64_t chunk = std::min(bytes, 256 * kKiB);
        const bool streams = command.window > 1;
        const double raw_before = wire.raw_cpu_s();
        wire.raw(raw, streams ? bytes * times : bytes, chunk, streams ? 1 : times);
        const double raw_s = wire.raw_cpu_s() - raw_before;
        report.add({"CPU of " + name + what, ours_s / gigabytes, "s/GB", raw_s / gigabytes, ""});
    };
    add_cpu("push ", {Kind::push, steps, window}, &RawClient::push);
    add_cpu("pull ", {Kind::pull, 1, 1}, &RawClient::pull);
}

// What a server of 64 MiB has resident at most, after pushes and pulls, beside what the aim allows.
void server_memory(Report& report, const Options& options) {
    const std::pair<const char*, double> rules[] = {{"sgd", 0}, {"adam", 2}};  // states per element
    for (const auto& [rule, states] : rules) {
        const std::string what = std::string("server memory, 64 MiB, ") + rule;
        if (!options.wants(what)) continue;
        WireSetup setup;
        setup.tensor_bytes = 64 * kMiB;
        setup.rule = rule;
        Wire wire(setup);
        wire.run({Kind::push, 8, 1});
        wire.run({Kind::pull, 1, 1});
        const double parameters = static_cast<double>(setup.bytes()) / kMiB;
        report.add({what, wire.server().memory_mib(), "MiB", parameters * (1 + states) + 96,
                    "limit: parameters + state + 96 MiB"});
    }
}

void many_small(Report& report, const Options& options, TransportKind transport,
                std::size_t rounds) {
    const std::string what = "200 x 4 KiB in one round trip, " + name_of(transport);
    if (!options.wants(what)) return;
    WireSetup setup;
    setup.tensors = 200;
    setup.tensor_bytes = 4 * kKiB;
    setup.transport = transport;
    Wire wire(setup);
    const WireCommand command{Kind::push_pull, 20, 1};
    const Measured took = measure(wire, command, setup.bytes(), rounds);
    report.add({what, took.seconds / command.steps * 1e3, "ms", took.limit_s / command.steps * 1e3,
                "aim 0.6 ms"});
}

void first_push(Report& report, const Options& options, std::size_t rounds) {
    const std::string what = "first push after start, tcp 16 MiB";
    if (!options.wants(what)) return;
    std::vector<double> first;
    std::vector<double> later;
    std::vector<double> start;
    for (std::size_t round = 0; round < rounds; ++round) {
        WireSetup setup;
        setup.tensor_bytes = 16 * kMiB;
        Wire wire(setup);
        start.push_back(wire.server().start_ms());
        first.push_back(wire.run({Kind::push, 1, 1}) * 1e3);
        for (int i = 0; i < 5; ++i) wire.run({Kind::push, 1, 1});
        later.push_back(wire.run({Kind::push, 1, 1}) * 1e3);
    }
    report.add({what, median(first), "ms", median(later), "limit: a later push"});
    report.add({"server start", median(start), "ms", 100, "aim 100 ms"});
}

void checksum_cost(Report& report, const Options& options, std::size_t rounds) {
    const std::string what = "push 64 MiB tcp with checksums";
    if (!options.wants(what)) return;
    WireSetup setup;
    setup.tensor_bytes = 64 * kMiB;
    Wire with(setup);
    setup.checksums = false;
    Wire without(setup);
    const WireCommand command{Kind::push, 1, 1};
    const auto medians = interleaved_medians(
        {[&] { with.run(command); }, [&] { without.run(command); }}, rounds * 2);
    const double gigabytes = static_cast<double>(setup.bytes()) * 1e-9;
    report.add(
        {what, gigabytes / medians[0], "GB/s", gigabytes / medians[1], "limit: the same without"});
}

}  // namespace
}  // namespace detente::bench

int main(int argc, char** argv) {
    using namespace detente;
    using namespace detente::bench;
    if (is_child(argc, argv)) return child_main(argc, argv);
    tune_allocator_for_frames();
    const Options options =
        parse_options(argc, argv, "push and pull over ZeroMQ beside a plain socket");
    Report report("wire", options);
    report.remark("checksums on; limit: a plain socket that reads in its best chunk, then adds");
    report.remark("lower quartiles of alternating rounds; a pull is of weights pulled before");
    const std::size_t rounds = options.quick ? 1 : 11;
    std::vector<std::uint64_t> sizes{4 * kKiB, 64 * kKiB, kMiB, 16 * kMiB, 64 * kMiB};
    if (options.quick) sizes = {4 * kKiB, kMiB};
    for (const auto transport : {TransportKind::tcp, TransportKind::ipc}) {
        for (const std::uint32_t count : {1U, 2U}) {
            for (const std::uint64_t bytes : sizes) {
                WireSetup setup;
                setup.servers = setup.workers = count;
                // A block for each server, where one of 1 MiB would be all there is.
                setup.tensors = bytes < 2 * kMiB ? count : 1;
                setup.tensor_bytes = bytes / setup.tensors;
                setup.transport = transport;
                throughput(report, options, setup, rounds);
            }
        }
        many_small(report, options, transport, rounds);
    }
    first_push(report, options, rounds);
    if (!options.quick) server_memory(report, options);
    if (!options.quick) checksum_cost(report, options, rounds);
    report.print();
    return 0;
}
