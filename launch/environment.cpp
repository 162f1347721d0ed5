#include "launch/environment.h"

#include <fmt/format.h>
#include <sys/socket.h>

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
constexpr Family kFamilies[] = {
    {"Détente's own", "DETENTE_RANK", "DETENTE_SIZE", "DETENTE_LOCAL_RANK", "DETENTE_LOCAL_SIZE"},
    {"torchrun's", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"Open MPI's", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"MPICH's", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
};
constexpr Family kSlurm = {"Slurm's", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID",
                           nullptr};
constexpr const char* kSlurmOlderSize = "SLURM_NTASKS";
constexpr const char* kPmixRank = "PMIX_RANK";

// What one source says of rank and size.
struct Claim {
    std::string launcher;
    std::string rank_name;
    std::uint32_t rank = 0;
    std::string size_name;
    std::optional<std::uint32_t> size;
    std::optional<std::uint32_t> local_rank;
    std::optional<bool> several_hosts;

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
    Claim claim{family.launcher, family.rank, **rank, family.size, *size, *local, std::nullopt};
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
    return std::optional<Claim>(Claim{"the flags", "--rank", *flags.rank, "--size", *flags.size,
                                      std::nullopt, std::nullopt});
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
    if (claim && *claim && *hosts) (*claim)->several_hosts = **hosts > 1;
    return claim;
}

Result<std::vector<Claim>> all_claims(const RankFlags& flags, const Variables& variables) {
    std::vector<Claim> claims;
    const auto from_flags = claim_of(flags);
    if (!from_flags) return from_flags.error();
    if (*from_flags) claims.push_back(**from_flags);
    for (const Family& family : kFamilies) {
        const auto claim = claim_of(family, variables);
        if (!claim) return claim.error();
        if (*claim) claims.push_back(**claim);
    }
    const auto slurm = slurm_claim(variables);
    if (!slurm) return slurm.error();
    const auto pmix = number(variables, kPmixRank);
    if (!pmix) return pmix.error();
    if (*pmix) {
        Claim claim{"PMIx's", kPmixRank, **pmix, "", std::nullopt, std::nullopt, std::nullopt};
        if (claims.empty() && *slurm) {  // srun --mpi=pmix: PMIx names no size, the step does
            claim.size_name = (*slurm)->size_name;
            claim.size = (*slurm)->size;
            claim.local_rank = (*slurm)->local_rank;
            claim.several_hosts = (*slurm)->several_hosts;
        }
        claims.push_back(claim);
    } else if (claims.empty() && *slurm) {
        claims.push_back(**slurm);
    }
    return claims;
}

Result<void> contradiction(const Claim& first, const Claim& other) {
    const bool same_size = !first.size || !other.size || *first.size == *other.size;
    if (first.rank == other.rank && same_size) return {};
    return fail(ErrorCode::bad_job,
                fmt::format("two launchers contradict each other: {}, but {}. Unset the variables "
                            "of the one that did not start this process",
                            first.text(), other.text()));
}

// HOST:PORT, [V6]:PORT or HOST.
Result<void> set_coordinator(Placement& placement, const std::string& text,
                             const std::string& source) {
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
    placement.coordinator_host = host;
    if (has_port) placement.coordinator_port = port;
    placement.coordinator_source = fmt::format("{} = {}", source, text);
    return {};
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

Result<void> find_coordinator(Placement& placement, const RankFlags& flags,
                              const Variables& variables) {
    if (flags.coordinator) return set_coordinator(placement, *flags.coordinator, "--coordinator");
    if (const auto own = variables("DETENTE_COORDINATOR")) {
        return set_coordinator(placement, *own, "DETENTE_COORDINATOR");
    }
    if (const auto master = variables("MASTER_ADDR")) {
        auto port = variables("MASTER_PORT");
        // torchrun's agent listens there itself, for ranks that are clients of its store.
        if (variables("TORCHELASTIC_USE_AGENT_STORE") == "True") port.reset();
        const bool is_v6 = master->find(':') != std::string::npos;
        const std::string host = is_v6 ? "[" + *master + "]" : *master;
        return set_coordinator(placement, port ? host + ":" + *port : host,
                               port ? "MASTER_ADDR:MASTER_PORT" : "MASTER_ADDR");
    }
    const auto nodes = variables("SLURM_STEP_NODELIST");
    if (nodes && variables("SLURM_STEP_ID")) {
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
    if (const auto run = variables("TORCHELASTIC_RUN_ID")) {
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
    const auto claims = all_claims(flags, variables);
    if (!claims) return claims.error();
    if (claims->empty()) return std::optional<Placement>();
    const Claim& first = claims->front();
    Placement placement;
    placement.rank = first.rank;
    placement.source = first.text();
    for (const Claim& claim : *claims) {
        if (const auto same = contradiction(first, claim); !same) return same.error();
        if (!placement.local_rank) placement.local_rank = claim.local_rank;
        if (!placement.several_hosts) placement.several_hosts = claim.several_hosts;
    }
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
    if (const auto found = find_coordinator(placement, flags, variables); !found) {
        return found.error();
    }
    placement.launch_key = find_launch_key(variables);
    return std::optional<Placement>(placement);
}

}  // namespace detente
