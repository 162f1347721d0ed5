#include "launch/environment.h"

#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <map>

#include "launch/roles.h"

namespace detente {
namespace {

using Set = std::map<std::string, std::string>;

Variables reading(const Set& set) {
    return [set](const char* name) -> std::optional<std::string> {
        const auto found = set.find(name);
        if (found == set.end()) return std::nullopt;
        return found->second;
    };
}

Placement placed(const Set& set, const RankFlags& flags = {}) {
    const auto placement = find_placement(flags, reading(set));
    INFO((placement ? "" : placement.error().text));
    REQUIRE(placement.has_value());
    REQUIRE(placement->has_value());
    return **placement;
}

std::string refusal(const Set& set, const RankFlags& flags = {}) {
    const auto placement = find_placement(flags, reading(set));
    if (placement) return "not refused";
    CHECK(placement.error().code == ErrorCode::bad_job);
    return placement.error().text;
}

TEST_CASE("environment: without a launcher there is no placement") {
    const auto placement = find_placement({}, reading({}));
    REQUIRE(placement.has_value());
    CHECK_FALSE(placement->has_value());
}

TEST_CASE("environment: every launcher's variables are read, and named") {
    struct Case {
        Set set;
        std::string source;
    };
    const std::vector<Case> cases = {
        {{{"DETENTE_RANK", "2"}, {"DETENTE_SIZE", "6"}, {"DETENTE_LOCAL_RANK", "1"}},
         "Détente's own DETENTE_RANK = 2 and DETENTE_SIZE = 6"},
        {{{"RANK", "2"}, {"WORLD_SIZE", "6"}, {"LOCAL_RANK", "1"}},
         "torchrun's RANK = 2 and WORLD_SIZE = 6"},
        {{{"OMPI_COMM_WORLD_RANK", "2"},
          {"OMPI_COMM_WORLD_SIZE", "6"},
          {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
          {"PMIX_RANK", "2"}},
         "Open MPI's OMPI_COMM_WORLD_RANK = 2 and OMPI_COMM_WORLD_SIZE = 6"},
        {{{"PMI_RANK", "2"}, {"PMI_SIZE", "6"}, {"MPI_LOCALRANKID", "1"}},
         "MPICH's PMI_RANK = 2 and PMI_SIZE = 6"},
        {{{"SLURM_PROCID", "2"},
          {"SLURM_STEP_NUM_TASKS", "6"},
          {"SLURM_NTASKS", "12"},
          {"SLURM_LOCALID", "1"},
          {"SLURM_STEP_ID", "0"}},
         "Slurm's SLURM_PROCID = 2 and SLURM_STEP_NUM_TASKS = 6"},
        {{{"SLURM_PROCID", "2"},
          {"SLURM_NTASKS", "6"},
          {"SLURM_LOCALID", "1"},
          {"SLURM_STEP_ID", "0"}},
         "Slurm's SLURM_PROCID = 2 and SLURM_NTASKS = 6"},
        {{{"PMIX_RANK", "2"},
          {"SLURM_PROCID", "2"},
          {"SLURM_STEP_NUM_TASKS", "6"},
          {"SLURM_LOCALID", "1"},
          {"SLURM_STEP_ID", "0"}},
         "PMIx's PMIX_RANK = 2 and SLURM_STEP_NUM_TASKS = 6"},
    };
    for (const Case& c : cases) {
        CAPTURE(c.source);
        const Placement placement = placed(c.set);
        CHECK(placement.rank == 2);
        CHECK(placement.size == 6);
        CHECK(placement.local_rank == 1U);
        CHECK(placement.source == c.source);
    }
    const Placement flagged = placed({}, {2, 6, std::nullopt});
    CHECK(flagged.source == "the flags --rank = 2 and --size = 6");
}

TEST_CASE("environment: a contradiction names both sources") {
    CHECK(refusal({{"RANK", "1"},
                   {"WORLD_SIZE", "4"},
                   {"OMPI_COMM_WORLD_RANK", "0"},
                   {"OMPI_COMM_WORLD_SIZE", "4"}}) ==
          "two launchers contradict each other: torchrun's RANK = 1 and WORLD_SIZE = 4, but Open "
          "MPI's OMPI_COMM_WORLD_RANK = 0 and OMPI_COMM_WORLD_SIZE = 4. Unset the variables of the "
          "one that did not start this process");
    CHECK(refusal(
              {{"PMI_RANK", "1"}, {"PMI_SIZE", "5"}, {"DETENTE_RANK", "1"}, {"DETENTE_SIZE", "4"}})
              .find("DETENTE_SIZE = 4, but MPICH's PMI_RANK = 1 and PMI_SIZE = 5") !=
          std::string::npos);
    CHECK(
        refusal({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}, {"PMIX_RANK", "0"}})
            .find("but PMIx's PMIX_RANK = 0") != std::string::npos);
    CHECK(refusal({{"RANK", "1"}, {"WORLD_SIZE", "4"}}, {2, 4, std::nullopt})
              .find("the flags --rank = 2 and --size = 4, but torchrun's RANK = 1") !=
          std::string::npos);
}

TEST_CASE("environment: sources that agree are no contradiction") {
    const Placement placement = placed({{"RANK", "1"},
                                        {"WORLD_SIZE", "4"},
                                        {"OMPI_COMM_WORLD_RANK", "1"},
                                        {"OMPI_COMM_WORLD_SIZE", "4"},
                                        {"OMPI_COMM_WORLD_LOCAL_RANK", "3"}});
    CHECK(placement.source == "torchrun's RANK = 1 and WORLD_SIZE = 4");
    CHECK(placement.local_rank == 3U);
}

const Set kStep = {{"SLURM_PROCID", "2"},
                   {"SLURM_STEP_NUM_TASKS", "9"},
                   {"SLURM_LOCALID", "0"},
                   {"SLURM_STEP_ID", "0"},
                   {"SLURM_STEP_NODELIST", "daemons[2-9]"}};

Set both(Set first, const Set& second) {
    first.insert(second.begin(), second.end());
    return first;
}

TEST_CASE("environment: a step of Slurm contradicts what is said by hand") {
    const std::string step = "but Slurm's SLURM_PROCID = 2 and SLURM_STEP_NUM_TASKS = 9";
    CHECK(refusal(kStep, {0, 6, std::nullopt}).find(step) != std::string::npos);
    CHECK(refusal(both(kStep, {{"DETENTE_RANK", "2"}, {"DETENTE_SIZE", "6"}})).find(step) !=
          std::string::npos);
    CHECK(refusal(both(kStep, {{"RANK", "0"}, {"WORLD_SIZE", "9"}})).find(step) !=
          std::string::npos);
    CHECK(placed(kStep, {2, 9, std::nullopt}).source == "the flags --rank = 2 and --size = 9");
    const Set of_pmix = both(kStep, {{"PMIX_RANK", "2"}});
    CHECK(refusal(of_pmix, {0, 6, std::nullopt})
              .find("but PMIx's PMIX_RANK = 2 and SLURM_STEP_NUM_TASKS = 9") != std::string::npos);
    CHECK(placed(of_pmix, {2, 9, std::nullopt}).local_rank == 0U);
}

TEST_CASE("environment: ranks within the host contradict each other too") {
    const Set three = {{"DETENTE_RANK", "2"},         {"DETENTE_SIZE", "6"},
                       {"DETENTE_LOCAL_RANK", "0"},   {"RANK", "2"},
                       {"WORLD_SIZE", "6"},           {"LOCAL_RANK", "1"},
                       {"OMPI_COMM_WORLD_RANK", "2"}, {"OMPI_COMM_WORLD_SIZE", "6"}};
    CHECK(refusal(three) ==
          "two launchers contradict each other: Détente's own DETENTE_LOCAL_RANK = 0, but "
          "torchrun's LOCAL_RANK = 1. Unset the variables of the one that did not start this "
          "process");
    Set two = three;
    two.erase("LOCAL_RANK");
    CHECK(placed(two).local_rank == 0U);
    two["OMPI_COMM_WORLD_LOCAL_RANK"] = "2";
    CHECK(refusal(two).find("DETENTE_LOCAL_RANK = 0, but Open MPI's OMPI_COMM_WORLD_LOCAL_RANK = "
                            "2") != std::string::npos);
}

TEST_CASE("environment: torchrun's ranks do not look at what placed their agent") {
    const Set torchrun = {
        {"RANK", "3"}, {"WORLD_SIZE", "6"}, {"LOCAL_RANK", "1"}, {"TORCHELASTIC_RUN_ID", "none"}};
    // srun --mpi=pmix, one agent for each node.
    const Placement beneath_srun = placed(
        both(both(torchrun, kStep), {{"PMIX_RANK", "2"}, {"PMIX_NAMESPACE", "slurm.pmix.7.0"}}));
    CHECK(beneath_srun.rank == 3);
    CHECK(beneath_srun.size == 6);
    CHECK(beneath_srun.local_rank == 1U);
    CHECK(beneath_srun.source == "torchrun's RANK = 3 and WORLD_SIZE = 6");
    const Set agent_of_mpirun = {{"OMPI_COMM_WORLD_RANK", "1"},
                                 {"OMPI_COMM_WORLD_SIZE", "2"},
                                 {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
                                 {"PMIX_RANK", "1"}};
    CHECK(placed(both(torchrun, agent_of_mpirun)).local_rank == 1U);
    // What is said by hand beneath the agent is compared with the agent's.
    CHECK(refusal(torchrun, {2, 6, std::nullopt}).find("but torchrun's RANK = 3") !=
          std::string::npos);
    // Set by a script and not by an agent: they are this process's own.
    Set by_hand = torchrun;
    by_hand.erase("TORCHELASTIC_RUN_ID");
    CHECK(refusal(both(by_hand, agent_of_mpirun)).find("but Open MPI's") != std::string::npos);
}

TEST_CASE("environment: a launch of one process contradicts nobody") {
    const Set shell = {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "1"}, {"SLURM_STEP_ID", "4"}};
    CHECK(placed(shell, {3, 6, std::nullopt}).rank == 3);
    const Set agents = {{"OMPI_COMM_WORLD_RANK", "0"},
                        {"OMPI_COMM_WORLD_SIZE", "1"},
                        {"OMPI_COMM_WORLD_LOCAL_RANK", "0"}};
    const Placement placement =
        placed(both(agents, {{"DETENTE_RANK", "3"}, {"DETENTE_SIZE", "6"}}));
    CHECK(placement.rank == 3);
    CHECK_FALSE(placement.local_rank.has_value());
}

TEST_CASE("environment: two places of the coordinator contradict each other") {
    Set set = {{"RANK", "0"},
               {"WORLD_SIZE", "3"},
               {"MASTER_ADDR", "one"},
               {"MASTER_PORT", "29500"},
               {"DETENTE_COORDINATOR", "two:29500"}};
    CHECK(refusal(set) ==
          "two places of the coordinator contradict each other: DETENTE_COORDINATOR = two:29500, "
          "but MASTER_ADDR:MASTER_PORT = one:29500. Unset the one that is wrong, or write both "
          "alike");
    set["DETENTE_COORDINATOR"] = "one:7";
    CHECK(refusal(set).find("DETENTE_COORDINATOR = one:7, but MASTER_ADDR") != std::string::npos);
    set["DETENTE_COORDINATOR"] = "one:29500";
    RankFlags flags;
    flags.coordinator = "one:7";
    CHECK(refusal(set, flags).find("--coordinator = one:7, but DETENTE_COORDINATOR = one:29500") !=
          std::string::npos);
    // Where torchrun's agent has its store there, it says nothing of another place.
    set["DETENTE_COORDINATOR"] = "two:7";
    set["TORCHELASTIC_USE_AGENT_STORE"] = "True";
    const Placement placement = placed(set);
    CHECK(placement.coordinator_host == "two");
    CHECK(placement.coordinator_port == std::uint16_t{7});
}

TEST_CASE("environment: Slurm's variables are not looked at beneath another launcher") {
    const Placement beneath_mpirun =
        placed(both(kStep, {{"OMPI_COMM_WORLD_RANK", "3"}, {"OMPI_COMM_WORLD_SIZE", "4"}}));
    CHECK(beneath_mpirun.rank == 3);
    CHECK_FALSE(beneath_mpirun.local_rank.has_value());
    CHECK(beneath_mpirun.coordinator_host.empty());
    // MPICH's proxies, by a Slurm whose MpiDefault is pmix.
    CHECK(placed(both(kStep, {{"PMI_RANK", "3"}, {"PMI_SIZE", "4"}, {"PMIX_RANK", "2"}})).rank ==
          3);
    // A PMIX_RANK that is not the step's is mpirun's, and says no size.
    CHECK(refusal(both(kStep, {{"PMIX_RANK", "3"}})).find("PMIx's PMIX_RANK = 3 says no size") ==
          0);
    CHECK(placed(both(kStep, {{"PMIX_RANK", "3"}}), {3, 4, std::nullopt}).rank == 3);
    // Nor in a batch script, which is no rank of a step.
    const auto batch = find_placement({}, reading({{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "4"}}));
    REQUIRE(batch.has_value());
    CHECK_FALSE(batch->has_value());
}

TEST_CASE("environment: half a placement and what is no number are refused") {
    CHECK(refusal({{"RANK", "1"}}) == "RANK is set but WORLD_SIZE is not: set both or none");
    CHECK(refusal({{"PMI_SIZE", "1"}}) == "PMI_SIZE is set but PMI_RANK is not: set both or none");
    CHECK(refusal({}, {1, std::nullopt, std::nullopt}) ==
          "--rank is given but --size is not: give both or none");
    CHECK(refusal({{"PMIX_RANK", "1"}}) ==
          "PMIx's PMIX_RANK = 1 says no size: set DETENTE_RANK and DETENTE_SIZE, or give --rank "
          "and --size");
    CHECK(refusal({{"RANK", "one"}, {"WORLD_SIZE", "4"}})
              .find("RANK: expected a whole number, found 'one'") == 0);
    CHECK(refusal({{"RANK", "4"}, {"WORLD_SIZE", "4"}}) ==
          "torchrun's RANK = 4 and WORLD_SIZE = 4: the rank must be below the size");
}

TEST_CASE("environment: the coordinator's place is read in the order of trust") {
    Set set = {
        {"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "one"}, {"MASTER_PORT", "29500"}};
    Placement placement = placed(set);
    CHECK(placement.coordinator_host == "one");
    CHECK(placement.coordinator_port == std::uint16_t{29500});
    CHECK(placement.coordinator_source == "MASTER_ADDR:MASTER_PORT = one:29500");

    set["DETENTE_COORDINATOR"] = "one:29500";
    CHECK(placed(set).coordinator_source == "DETENTE_COORDINATOR = one:29500");
    RankFlags flags;
    flags.coordinator = "one";
    placement = placed(set, flags);
    CHECK(placement.coordinator_source == "--coordinator = one");
    CHECK_FALSE(placement.coordinator_port.has_value());
    flags.coordinator = "three:99999";
    CHECK(refusal(set, flags) ==
          "--coordinator: expected HOST:PORT like node1:5555, found 'three:99999'");
    placement = placed({{"RANK", "0"}, {"WORLD_SIZE", "3"}, {"DETENTE_COORDINATOR", "[::1]:7"}});
    CHECK(placement.coordinator_host == "::1");
    CHECK(placement.coordinator_port == std::uint16_t{7});

    CHECK(placed({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).coordinator_host.empty());
    const Placement slurm = placed({{"SLURM_PROCID", "0"},
                                    {"SLURM_NTASKS", "1"},
                                    {"SLURM_STEP_ID", "3"},
                                    {"SLURM_JOB_ID", "12"},
                                    {"SLURM_STEP_NODELIST", "rack[07-09,12]-a,other"}});
    CHECK(slurm.coordinator_host == "rack07-a");
    CHECK_FALSE(slurm.coordinator_port.has_value());
    CHECK(slurm.launch_key == "slurm-12.3");
}

TEST_CASE("environment: the first host of a Slurm step is read from its list") {
    const auto first = [](const std::string& list) {
        return placed({{"SLURM_PROCID", "0"},
                       {"SLURM_NTASKS", "1"},
                       {"SLURM_STEP_ID", "3"},
                       {"SLURM_STEP_NODELIST", list}})
            .coordinator_host;
    };
    CHECK(first("one") == "one");
    CHECK(first("one,two") == "one");
    CHECK(first("n[3,5-7]") == "n3");
    CHECK(first("n[03-07]") == "n03");
    CHECK(first("n[4]x,m") == "n4x");
    CHECK(first("n[4").empty());
}

TEST_CASE("environment: torchrun's agent keeps MASTER_PORT for its own store") {
    // As torch/distributed/elastic/agent/server/local_elastic_agent.py sets them.
    const Set torchrun = {{"RANK", "0"},
                          {"LOCAL_RANK", "0"},
                          {"WORLD_SIZE", "5"},
                          {"LOCAL_WORLD_SIZE", "5"},
                          {"GROUP_RANK", "0"},
                          {"GROUP_WORLD_SIZE", "1"},
                          {"ROLE_RANK", "0"},
                          {"ROLE_NAME", "default"},
                          {"ROLE_WORLD_SIZE", "5"},
                          {"MASTER_ADDR", "127.0.0.1"},
                          {"MASTER_PORT", "29500"},
                          {"TORCHELASTIC_RESTART_COUNT", "0"},
                          {"TORCHELASTIC_MAX_RESTARTS", "0"},
                          {"TORCHELASTIC_RUN_ID", "none"},
                          {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
    const Placement placement = placed(torchrun);
    CHECK(placement.coordinator_host == "127.0.0.1");
    CHECK_FALSE(placement.coordinator_port.has_value());
    CHECK(placement.launch_key == "torchrun-none-29500");
    Set without = torchrun;
    without["TORCHELASTIC_USE_AGENT_STORE"] = "False";
    CHECK(placed(without).coordinator_port == std::uint16_t{29500});
}

TEST_CASE("environment: whether ranks are on several hosts is what the launcher says of its own") {
    const Set two = {{"RANK", "1"}, {"WORLD_SIZE", "4"}};
    const auto with = [&two](Set more) {
        more.insert(two.begin(), two.end());
        return placed(more).several_hosts;
    };
    CHECK_FALSE(with({}).has_value());
    CHECK(with({{"LOCAL_WORLD_SIZE", "4"}}) == false);
    CHECK(with({{"LOCAL_WORLD_SIZE", "2"}}) == true);
    const Set mpi = {{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "4"}};
    Set here = mpi;
    here["OMPI_COMM_WORLD_LOCAL_SIZE"] = "4";
    CHECK(placed(here).several_hosts == false);
    here["OMPI_COMM_WORLD_LOCAL_SIZE"] = "3";
    CHECK(placed(here).several_hosts == true);
    CHECK(placed({{"PMI_RANK", "0"}, {"PMI_SIZE", "4"}, {"MPI_LOCALNRANKS", "1"}}).several_hosts ==
          true);
    Set slurm = {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}, {"SLURM_STEP_ID", "0"}};
    CHECK_FALSE(placed(slurm).several_hosts.has_value());
    slurm["SLURM_STEP_NUM_NODES"] = "1";
    CHECK(placed(slurm).several_hosts == false);
    slurm["SLURM_STEP_NUM_NODES"] = "2";
    CHECK(placed(slurm).several_hosts == true);
}

TEST_CASE("environment: what tells two launches apart is read from each launcher") {
    const Set pmi = {{"PMI_RANK", "1"}, {"PMI_SIZE", "4"}};
    const auto with = [&pmi](Set more) {
        more.insert(pmi.begin(), pmi.end());
        return placed(more).launch_key;
    };
    CHECK(with({}).empty());
    CHECK(with({{"PMI_JOBID", "77.0"}}) == "pmi-77.0");
    CHECK(with({{"PMIX_NAMESPACE", "n1"}, {"PMI_JOBID", "77.0"}}) == "pmix-n1");
    CHECK(with({{"TORCHELASTIC_RUN_ID", "r"}, {"PMIX_NAMESPACE", "n1"}}) == "torchrun-r");
    CHECK(with({{"DETENTE_LAUNCH_KEY", "mine"}, {"PMIX_NAMESPACE", "n1"}}) == "detente-mine");
}

TEST_CASE(
    "environment: MPICH's launch is known by the proxy behind PMI_FD, if all ranks are here") {
    int ends[2] = {};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    Set set = {{"PMI_RANK", "1"},
               {"PMI_SIZE", "4"},
               {"MPI_LOCALNRANKS", "4"},
               {"PMI_FD", std::to_string(ends[1])}};
    CHECK(placed(set).launch_key ==
          "mpich-" + this_host() + "-" + std::to_string(::getpid()));  // who made the pair
    set["MPI_LOCALNRANKS"] = "2";
    CHECK(placed(set).launch_key.empty());
    set["MPI_LOCALNRANKS"] = "4";
    ::close(ends[0]);
    ::close(ends[1]);
    CHECK(placed(set).launch_key.empty());  // a script closed it
}

}  // namespace
}  // namespace detente
