#include "launch/environment.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <vector>

#include "launch/roles.h"

namespace detente {
namespace {

// The variables of one launcher, in the order of trust.
struct Family {
    const char* launcher;
    const char* rank;
    const char* size;        // nullptr: this launcher names none
    const char* local_rank;  // nullptr: likewise
    const char* local_size;  // ranks on this host; nullptr: likewise
};
constexpr Family kOwn = {"Détente's own", "DETENTE_RANK", "DETENTE_SIZE", "DETENTE_LOCAL_RANK",
                         "DETENTE_LOCAL_SIZE"};
constexpr Family kTorchrun = {"torchrun's", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
constexpr Family kMpis[] = {
    {"Open MPI's", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"MPICH's", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
};
constexpr Family kSlurm = {"Slurm's", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID",
                           nullptr};
constexpr const char* kSlurmOlderSize = "SLURM_NTASKS";
constexpr const char* kPmixRank = "PMIX_RANK";
constexpr const char* kTorchrunAgent = "TORCHELASTIC_RUN_ID";

// What one source says of rank and size.
struct Claim {
    std::string launcher;
    std::string rank_name;
    std::uint32_t rank = 0;
    std::string size_name;
    std::optional<std::uint32_t> size;
    std::string local_rank_name;
    std::optional<std::uint32_t> local_rank;
    std::optional<bool> several_hosts;
    bool of_step = false;  // a task of srun's

    std::string text() const {
        std::string result = fmt::format("{} {} = {}", launcher, rank_name, rank);
        if (size) result += fmt::format(" and {} = {}", size_name, *size);
        return result;
    }
};

Result<std::optional<std::uint32_t>> number(const Variables& variables, const char* name) {
    if (name == nullptr) return std::optional<std::uint32_t>();
    const auto text = variables(name);
    if (!text) return std::optional<std::uint32_t>();
    std::uint32_t value = 0;
    const auto parsed = std::from_chars(text->data(), text->data() + text->size(), value);
    if (parsed.ec != std::errc() || parsed.ptr != text->data() + text->size()) {
        return fail(ErrorCode::bad_job,
                    fmt::format("{}: expected a whole number, found '{}': unset it, or set it as "
                                "the launcher should have",
                                name, *text));
    }
    return std::optional<std::uint32_t>(value);
}

Result<std::optional<Claim>> claim_of(const Family& family, const Variables& variables) {
    const auto rank = number(variables, family.rank);
    if (!rank) return rank.error();
    const auto size = number(variables, family.size);
    if (!size) return size.error();
    const auto local = number(variables, family.local_rank);
    if (!local) return local.error();
    const auto local_size = number(variables, family.local_size);
    if (!local_size) return local_size.error();
    if (!*rank && !*size) return std::optional<Claim>();
    if (!*rank || !*size) {
        const char* there = *rank ? family.rank : family.size;
        const char* missing = *rank ? family.size : family.rank;
        return fail(ErrorCode::bad_job,
                    fmt::format("{} is set but {} is not: set both or none", there, missing));
    }
    Claim claim{family.launcher, family.rank, **rank, family.size, *size, {}, *local, std::nullopt};
    if (*local) claim.local_rank_name = family.local_rank;
    if (*local_size) claim.several_hosts = **local_size < **size;
    return std::optional<Claim>(std::move(claim));
}

Result<std::optional<Claim>> claim_of(const RankFlags& flags) {
    if (!flags.rank && !flags.size) return std::optional<Claim>();
    if (!flags.rank || !flags.size) {
        return fail(ErrorCode::bad_job, fmt::format("{} is given but {} is not: give both or none",
                                                    flags.rank ? "--rank" : "--size",
                                                    flags.rank ? "--size" : "--rank"));
    }
    return std::optional<Claim>(Claim{
        "the flags", "--rank", *flags.rank, "--size", *flags.size, {}, std::nullopt, std::nullopt});
}

// Slurm's step size is SLURM_STEP_NUM_TASKS; older versions and tests set SLURM_NTASKS only.
Result<std::optional<Claim>> slurm_claim(const Variables& variables) {
    Family family = kSlurm;
    if (!variables(family.size)) family.size = kSlurmOlderSize;
    // A batch script is no rank: its allocation sets sizes, and a procid only within a step.
    if (!variables(family.rank) || !variables("SLURM_STEP_ID")) {
        return std::optional<Claim>();
    }
    auto claim = claim_of(family, variables);
    const auto hosts = number(variables, "SLURM_STEP_NUM_NODES");
    if (!hosts) return hosts.error();
    if (claim && *claim) (*claim)->of_step = true;
    if (claim && *claim && *hosts) (*claim)->several_hosts = **hosts > 1;
    return claim;
}

// Of mpirun's variables, PMIx's and Slurm's, those of whoever started this process: what is around
// mpirun is Slurm's.
Result<void> add_launchers(std::vector<Claim>& claims, const Variables& variables) {
    bool mpirun = false;
    for (const Family& family : kMpis) {
        const auto claim = claim_of(family, variables);
        if (!claim) return claim.error();
        if (!*claim) continue;
        claims.push_back(**claim);
        mpirun = true;
    }
    const auto pmix = number(variables, kPmixRank);
    if (!pmix) return pmix.error();
    // srun --mpi=pmix: PMIx names no size, the step does.
    const bool pmix_of_slurm =
        *pmix && variables("SLURM_STEP_ID") && variables(kPmixRank) == variables(kSlurm.rank);
    if (*pmix && !pmix_of_slurm) {
        claims.push_back({"PMIx's", kPmixRank, **pmix, "", {}, {}, {}, {}});
        mpirun = true;
    }
    if (mpirun) return {};
    auto slurm = slurm_claim(variables);
    if (!slurm) return slurm.error();
    if (!*slurm) return {};
    if (pmix_of_slurm) {
        (*slurm)->launcher = "PMIx's";
        (*slurm)->rank_name = kPmixRank;
    }
    claims.push_back(**slurm);
    return {};
}

// In the order of trust, without what was inherited from around the launcher that started this
// process.
Result<std::vector<Claim>> all_claims(const RankFlags& flags, const Variables& variables) {
    std::vector<Claim> claims;
    const auto from_flags = claim_of(flags);
    if (!from_flags) return from_flags.error();
    if (*from_flags) claims.push_back(**from_flags);
    const auto own = claim_of(kOwn, variables);
    if (!own) return own.error();
    if (*own) claims.push_back(**own);
    const auto torchrun = claim_of(kTorchrun, variables);
    if (!torchrun) return torchrun.error();
    if (*torchrun) claims.push_back(**torchrun);
    // mpirun or srun placed the agent, and the agent its ranks.
    if (*torchrun && variables(kTorchrunAgent)) return claims;
    if (const auto added = add_launchers(claims, variables); !added) return added.error();
    return claims;
}

Error contradiction(const std::string& first, const std::string& other) {
    return fail(ErrorCode::bad_job,
                fmt::format("two launchers contradict each other: {}, but {}. Unset the variables "
                            "of the one that did not start this process",
                            first, other));
}

// The first one's rank and size, and who says what else there is to say.
Result<Placement> placement_by(const std::vector<Claim>& claims) {
    const Claim& first = claims.front();
    Placement placement;
    placement.rank = first.rank;
    placement.source = first.text();
    const Claim* by = nullptr;  // who says the rank within the host
    for (const Claim& claim : claims) {
        const bool same_size = !first.size || !claim.size || *first.size == *claim.size;
        if (first.rank != claim.rank || !same_size) {
            return contradiction(first.text(), claim.text());
        }
        if (by != nullptr && claim.local_rank && by->local_rank != claim.local_rank) {
            return contradiction(
                fmt::format("{} {} = {}", by->launcher, by->local_rank_name, *by->local_rank),
                fmt::format("{} {} = {}", claim.launcher, claim.local_rank_name,
                            *claim.local_rank));
        }
        if (by == nullptr && claim.local_rank) by = &claim;
        if (!placement.several_hosts) placement.several_hosts = claim.several_hosts;
    }
    if (by != nullptr) placement.local_rank = by->local_rank;
    if (!first.size) {
        return fail(ErrorCode::bad_job,
                    fmt::format("{} says no size: set DETENTE_RANK and DETENTE_SIZE, or give "
                                "--rank and --size",
                                first.text()));
    }
    placement.size = *first.size;
    if (placement.rank >= placement.size) {
        return fail(ErrorCode::bad_job,
                    fmt::format("{}: the rank must be below the size", first.text()));
    }
    return placement;
}

// Where somebody says that rank 0 is found.
struct Told {
    std::string host;
    std::optional<std::uint16_t> port;
    std::string source;
};

// HOST:PORT, [V6]:PORT or HOST.
Result<Told> told_place(const std::string& text, const std::string& source) {
    const std::size_t colon = text.rfind(':');
    const bool has_port = colon != std::string::npos && text.find(']', colon) == std::string::npos;
    std::string host = has_port ? text.substr(0, colon) : text;
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
        host = host.substr(1, host.size() - 2);
    }
    std::uint16_t port = 0;
    if (has_port) {
        const char* end = text.data() + text.size();
        const auto parsed = std::from_chars(text.data() + colon + 1, end, port);
        if (parsed.ec != std::errc() || parsed.ptr != end || port == 0) host.clear();
    }
    if (host.empty()) {
        return fail(
            ErrorCode::bad_job,
            fmt::format("{}: expected HOST:PORT like node1:5555, found '{}'", source, text));
    }
    return Told{host, has_port ? std::optional(port) : std::nullopt,
                fmt::format("{} = {}", source, text)};
}

// "node[07-09,12],other" → "node07": Slurm starts rank 0 on the first.
std::string first_node(const std::string& list) {
    const std::size_t end = list.find_first_of(",[");
    std::string name = list.substr(0, end);
    if (end == std::string::npos || list[end] == ',') return name;
    const std::size_t last = list.find_first_of(",-]", end + 1);
    if (last == std::string::npos) return {};
    name += list.substr(end + 1, last - end - 1);
    const std::size_t close = list.find(']', last);
    if (close == std::string::npos) return {};
    return name + list.substr(close + 1, list.find(',', close) - close - 1);
}

Result<std::vector<Told>> all_told(const RankFlags& flags, const Variables& variables) {
    std::vector<std::pair<std::string, std::string>> texts;  // and where each comes from
    if (flags.coordinator) texts.emplace_back(*flags.coordinator, "--coordinator");
    if (const auto own = variables("DETENTE_COORDINATOR")) {
        texts.emplace_back(*own, "DETENTE_COORDINATOR");
    }
    // torchrun's agent listens there itself, for ranks that are clients of its store: good for a
    // host, where nobody names a place.
    const bool agents = variables("TORCHELASTIC_USE_AGENT_STORE") == "True";
    const auto master = variables("MASTER_ADDR");
    if (master && (!agents || texts.empty())) {
        const auto port = agents ? std::nullopt : variables("MASTER_PORT");
        const bool is_v6 = master->find(':') != std::string::npos;
        const std::string host = is_v6 ? "[" + *master + "]" : *master;
        texts.emplace_back(port ? host + ":" + *port : host,
                           port ? "MASTER_ADDR:MASTER_PORT" : "MASTER_ADDR");
    }
    std::vector<Told> all;
    for (const auto& [text, source] : texts) {
        const auto told = told_place(text, source);
        if (!told) return told.error();
        all.push_back(*told);
    }
    return all;
}

Result<void> find_coordinator(Placement& placement, const RankFlags& flags,
                              const Variables& variables, bool of_step) {
    const auto all = all_told(flags, variables);
    if (!all) return all.error();
    for (const Told& told : *all) {
        const Told& first = all->front();
        const bool same_port = !first.port || !told.port || *first.port == *told.port;
        if (first.host == told.host && same_port) continue;
        return fail(ErrorCode::bad_job,
                    fmt::format("two places of the coordinator contradict each other: {}, but {}. "
                                "Unset the one that is wrong, or write both alike",
                                first.source, told.source));
    }
    if (!all->empty()) {
        placement.coordinator_host = all->front().host;
        placement.coordinator_port = all->front().port;
        placement.coordinator_source = all->front().source;
        return {};
    }
    const auto nodes = variables("SLURM_STEP_NODELIST");
    // Beneath mpirun it would be a list of its daemons' hosts.
    if (nodes && of_step) {
        placement.coordinator_host = first_node(*nodes);
        placement.coordinator_source = "the first of SLURM_STEP_NODELIST = " + *nodes;
    }
    return {};
}

// MPICH's proxy, which holds the other end of every local rank's PMI_FD, also of those that a
// script of their own started. Empty: not under MPICH, or with ranks on other hosts, whose proxies
// differ.
std::string mpich_proxy(const Variables& variables) {
    const auto local = variables("MPI_LOCALNRANKS");
    const auto descriptor = number(variables, "PMI_FD");
    if (!local || local != variables("PMI_SIZE") || !descriptor || !*descriptor) return {};
    ucred proxy{};
    socklen_t length = sizeof(proxy);
    const int socket = static_cast<int>(**descriptor);
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &proxy, &length) != 0 || proxy.pid <= 0) {
        return {};
    }
    return fmt::format("mpich-{}-{}", this_host(), proxy.pid);
}

std::string find_launch_key(const Variables& variables) {
    if (const auto own = variables("DETENTE_LAUNCH_KEY")) return "detente-" + *own;
    if (const auto run = variables(kTorchrunAgent)) {
        const auto port = variables("MASTER_PORT");
        return "torchrun-" + *run + (port ? "-" + *port : "");
    }
    if (const auto space = variables("PMIX_NAMESPACE")) return "pmix-" + *space;
    if (const auto launch = variables("PMI_JOBID")) return "pmi-" + *launch;
    if (std::string proxy = mpich_proxy(variables); !proxy.empty()) return proxy;
    const auto job = variables("SLURM_JOB_ID");
    const auto step = variables("SLURM_STEP_ID");
    if (job && step) return "slurm-" + *job + "." + *step;
    return {};
}

}  // namespace

std::optional<std::string> process_variable(const char* name) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') return std::nullopt;
    return std::string(value);
}

Result<std::optional<Placement>> find_placement(const RankFlags& flags,
                                                const Variables& variables) {
    auto claims = all_claims(flags, variables);
    if (!claims) return claims.error();
    if (claims->empty()) return std::optional<Placement>();
    // A launch of one process is no job's: it may have started what started the ranks.
    claims->erase(std::remove_if(claims->begin() + 1, claims->end(),
                                 [](const Claim& claim) { return claim.size == 1U; }),
                  claims->end());
    auto placement = placement_by(*claims);
    if (!placement) return placement.error();
    const bool of_step = std::any_of(claims->begin(), claims->end(),
                                     [](const Claim& claim) { return claim.of_step; });
    if (const auto found = find_coordinator(*placement, flags, variables, of_step); !found) {
        return found.error();
    }
    placement->launch_key = find_launch_key(variables);
    return std::optional<Placement>(std::move(*placement));
}

}  // namespace detente
