// A server: so many shards, each with a thread and a loop of its own; nothing is shared between
// them but the control link.
#include <fmt/core.h>
#include <sys/prctl.h>

#include <thread>

#include "common/build_id.h"
#include "common/runtime/zmq/loop.h"
#include "launch/addresses.h"
#include "launch/machine.h"
#include "launch/role_ledger.h"
#include "launch/role_link.h"
#include "launch/staging_plan.h"
#include "ps/restore.h"
#include "ps/shard.h"

namespace detente {

namespace {

struct LiveShard {
    ShardId id;
    std::unique_ptr<LedgerWriter> ledger;
    std::unique_ptr<ZmqLoop> loop;
    std::unique_ptr<Shard> node;
    Outcome outcome;
    std::thread thread;
};

Result<void> open_loops(std::vector<LiveShard>& shards, const Job& job, const RoleOptions& role,
                        RoleLink& link) {
    ListeningWish wish;
    wish.bind = role.bind.empty() ? job.bind_address : role.bind;
    wish.advertise = role.advertise.empty() ? job.advertise_address : role.advertise;
    wish.several_hosts = role.several_hosts;
    wish.control = link.control().local_address();
    const auto where = listening(wish, own_interfaces());
    if (where.has_error()) return where.error();
    link.log().write(LogLevel::information, fmt::format("listens on {}, and is connected to at {}",
                                                        where->bind, where->advertise));
    for (LiveShard& shard : shards) {
        ZmqLoopOptions options;
        options.self = node_of(shard.id);
        options.generation = link.control().generation();
        options.build = build_id();
        options.host = this_host();
        options.bind_address = where->bind;
        options.advertise_address = where->advertise;
        if (job.port != 0) options.port = static_cast<std::uint16_t>(job.port + 1 + shard.id.value);
        options.transport = job.transport;
        options.checksum = job.checksum;
        options.control = &link.control();
        options.log = link.log().sink();
        auto loop = ZmqLoop::open(std::move(options));
        if (loop.has_error()) return loop.error();
        shard.loop = std::move(*loop);
    }
    return {};
}

Result<void> make_nodes(std::vector<LiveShard>& shards, const Briefing& briefing,
                        const RoleOptions& options, const ProcessLog& log) {
    std::vector<ShardId> here;
    here.reserve(shards.size());
    for (const LiveShard& shard : shards) here.push_back(shard.id);
    auto fits =
        check_staging(*briefing.plan, *briefing.job, here, memory_of_this_machine(), this_host());
    if (fits.has_error()) return fits;
    for (LiveShard& shard : shards) {
        ShardSetup setup;
        setup.id = shard.id;
        setup.job = briefing.job;
        setup.plan = briefing.plan;
        setup.training_samples = briefing.model.training_samples;
        if (!options.resume.empty()) {
            const auto gaps = restore_shard(setup, options.resume, briefing.model);
            if (gaps.has_error()) return gaps.error();
            for (const std::string& gap : *gaps) log.write(LogLevel::warning, gap);
        }
        auto node = Shard::create(std::move(setup));
        if (node.has_error()) return node.error();
        shard.node = std::move(*node);
    }
    return {};
}

Result<void> open_ledgers(std::vector<LiveShard>& shards, const Briefing& briefing,
                          const ControlClient& control) {
    for (LiveShard& shard : shards) {
        auto ledger =
            open_ledger(*shard.loop, control, briefing.job->name, machine_description(1, ""));
        if (ledger.has_error()) return ledger.error();
        shard.ledger = std::move(*ledger);
    }
    return {};
}

}  // namespace

ExitCode run_server(std::unique_ptr<ControlClient> control, const RoleOptions& options) {
    RoleLink link(std::move(control), options);
    const auto job = link.begin();
    if (job.has_error()) return link.give_up(job.error());
    std::vector<LiveShard> shards(job->shards_per_server);
    for (std::uint32_t i = 0; i < job->shards_per_server; ++i) {
        shards[i].id = ShardId{options.rank * job->shards_per_server + i};
        link.speak_for(node_of(shards[i].id));
    }
    if (auto log = link.open_log(fmt::format("server:{}", options.rank)); log.has_error()) {
        return link.give_up(log.error());
    }
    if (auto opened = open_loops(shards, *job, options, link); opened.has_error()) {
        return link.give_up(opened.error());
    }
    for (const LiveShard& shard : shards) {
        link.hello(node_of(shard.id), shard.loop->endpoint(), !options.resume.empty());
    }
    link.announce("waiting for the other processes");
    const auto briefing = link.wait_for_welcome();
    if (briefing.has_error()) return link.give_up(briefing.error());
    link.announce(options.resume.empty() ? "making its blocks"
                                         : "restoring its blocks from " + options.resume);
    if (auto made = make_nodes(shards, *briefing, options, link.log()); made.has_error()) {
        return link.give_up(made.error());
    }
    if (auto opened = open_ledgers(shards, *briefing, link.control()); opened.has_error()) {
        return link.give_up(opened.error());
    }
    for (LiveShard& shard : shards) {
        link.hand_over(node_of(shard.id), *shard.loop, briefing->welcome);
        shard.thread = std::thread([&shard] {
            ::prctl(PR_SET_NAME, fmt::format("shard {}", shard.id.value).c_str());
            shard.outcome = shard.loop->run(*shard.node);
        });
    }
    std::vector<Outcome> outcomes;
    for (LiveShard& shard : shards) {
        shard.thread.join();
        outcomes.push_back(shard.outcome);
    }
    return link.end(outcomes);
}

}  // namespace detente
