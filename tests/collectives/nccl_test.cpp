// What the module over NCCL does when NCCL fails, against the stand-in (standin/nccl.cpp), and what
// it says where there is nothing to run on.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <iostream>

#include "tests/collectives/module_kinds.h"
#include "worker/collectives/collective_module.h"

using namespace detente;
using namespace detente::testing;

namespace {

bool is_built() {
    if (!std::string(NCCL_MODULE).empty()) return true;
    std::cout << "skipped: the module over NCCL was not built, CUDA with NCCL was not there\n";
    return false;
}

// The stand-in is told for as long as this lives, in processes forked meanwhile.
class Fault {
  public:
    explicit Fault(const std::string& text) { ::setenv(kName, text.c_str(), 1); }
    ~Fault() { ::unsetenv(kName); }
    Fault(const Fault&) = delete;
    Fault& operator=(const Fault&) = delete;

  private:
    static constexpr const char* kName = "DETENTE_STANDIN_FAULT";
};

// Averages with a short deadline until the group is broken; then once more in a new one.
Lines until_broken(std::size_t i, const std::string& run, const std::vector<std::size_t>& left) {
    const auto backend = nccl_over_standin(run)();
    auto formed = backend->form(whole_group(1, 3), worker(i), std::chrono::seconds(10));
    if (formed.has_error()) return {formed.error().text};
    Lines lines;
    for (std::uint64_t step = 1; step <= 3 && lines.empty(); ++step) {
        const CollectiveKey key = key_of(1, step, 0);
        const auto begun = (*formed)->begin(key, share_of(i, key, 90'000, 1),
                                            clock_now() + std::chrono::seconds(2));
        if (begun.has_error()) return {begun.error().text};
        for (const auto& end : ends_of(**formed, 1)) {
            if (const auto* broken = std::get_if<Broken>(&end.result)) {
                lines = {"step " + std::to_string(step) + " " + text_of(*broken),
                         broken->error.text};
            } else if (error_of(std::get<Averaged>(end.result), key, {1, 1, 1}) > 1e-6) {
                return {"a wrong mean"};
            }
        }
    }
    formed->reset();
    const Group rest = group_of(2, left);
    if (rest.index_of(worker(i)) == left.size()) return lines;
    formed = backend->form(rest, worker(i), std::chrono::seconds(10));
    if (formed.has_error()) return {formed.error().text};
    const CollectiveKey key = key_of(2, 1, 0);
    const auto begun =
        (*formed)->begin(key, share_of(i, key, 1000, 1), clock_now() + std::chrono::seconds(10));
    if (begun.has_error()) return {begun.error().text};
    std::vector<double> weights(3, 0.0);
    for (const std::size_t member : left) weights[member] = 1;
    for (const auto& end : ends_of(**formed, 1)) {
        const auto* averaged = std::get_if<Averaged>(&end.result);
        const bool right = averaged != nullptr && error_of(*averaged, key, weights) < 1e-6;
        lines.push_back(right ? "right again" : text_of(end));
    }
    return lines;
}

Reports with_fault(const std::string& fault, const std::vector<std::size_t>& left) {
    const Fault told(fault);
    const std::string run = unique_run();
    return fork_members(
        [&](std::size_t i, const auto&) {
            try {
                return until_broken(i, run, left);
            } catch (const std::exception& thrown) {
                return Lines{thrown.what()};
            }
        },
        3);
}

// A member for each place forms the group, the i-th as if it were at places[i] of its host.
Reports form_at(const MakeBackend& make, const std::vector<std::string>& places) {
    return fork_members(
        [&](std::size_t i, const auto&) -> Lines {
            ::unsetenv("NCCL_MULTI_RANK_GPU_ENABLE");  // with which newer ones let them share
            ::setenv(kMemberVariable, places[i].c_str(), 1);
            const auto formed =
                make()->form(whole_group(1, places.size()), worker(i), std::chrono::seconds(10));
            if (formed.has_value()) return {"formed"};
            return {name_of(formed.error().code), formed.error().text};
        },
        places.size());
}

// Of those who share `device` at least one is told that it is not to be had twice.
void check_told_of_one_gpu_each(const Reports& reports, const std::vector<std::size_t>& sharing,
                                const std::string& device) {
    bool is_told = false;
    for (const std::size_t i : sharing) {
        REQUIRE(reports[i].size() == 2);
        INFO(reports[i][1]);
        // Who is second may see the other one leave.
        if (reports[i][0] == "peer_lost") continue;
        CHECK(reports[i][0] == "not_supported");
        CHECK(reports[i][1].find("uses CUDA device " + device +
                                 ", and NCCL takes one worker per GPU") != std::string::npos);
        is_told = true;
    }
    CHECK(is_told);
}

}  // namespace

TEST_CASE("nccl: an average that hangs is aborted at the deadline and all form anew") {
    if (!is_built()) return;
    const Reports reports = with_fault("hang:1:2", {0, 1, 2});
    for (const Lines& lines : reports) {
        REQUIRE(lines.size() == 3);
        // NCCL cannot say whose fault it is: it has ended nowhere.
        CHECK(lines[0] == "step 2 broken: timed_out, missing worker:2 worker:5 worker:8");
        CHECK(lines[2] == "right again");
    }
}

TEST_CASE("nccl: an asynchronous error names the member where it came and what NCCL said") {
    if (!is_built()) return;
    const Reports reports = with_fault("fail:2:2", {0, 1});
    for (const std::size_t i : {0U, 1U}) {
        REQUIRE(reports[i].size() == 3);
        CHECK(reports[i][0] == "step 2 broken: io, missing worker:8");
        CHECK(reports[i][2] == "right again");
    }
    REQUIRE(reports[2].size() == 2);
    CHECK(reports[2][0] == "step 2 broken: io, missing worker:8");
    INFO(reports[2][1]);
    CHECK(reports[2][1].find("here: an average failed: unhandled cuda error") != std::string::npos);
}

TEST_CASE("nccl: a rank that is lost in the middle of a sum is named and the others form anew") {
    if (!is_built()) return;
    const Reports reports = with_fault("lose:1:3", {0, 2});
    CHECK(reports[1] == Lines{"died"});
    for (const std::size_t i : {0U, 2U}) {
        REQUIRE(reports[i].size() == 3);
        CHECK(reports[i][0] == "step 3 broken: peer_lost, missing worker:5");
        CHECK(reports[i][2] == "right again");
    }
}

TEST_CASE("nccl: joining that hangs ends at the deadline with an error") {
    if (!is_built()) return;
    const Fault told("hang_join:1:0");
    const std::string run = unique_run();
    const Reports reports = fork_members(
        [&](std::size_t i, const auto&) -> Lines {
            const auto backend = nccl_over_standin(run)();
            const auto formed =
                backend->form(whole_group(1, 2), worker(i), std::chrono::milliseconds(400));
            return {formed.has_value() ? "formed" : name_of(formed.error().code)};
        },
        2);
    for (const Lines& lines : reports) {
        REQUIRE(lines.size() == 1);
        // Who is second to give up may see the other one leave.
        CHECK((lines[0] == "timed_out" || lines[0] == "peer_lost"));
    }
}

TEST_CASE("nccl: two members on one device are refused and told that each takes a GPU") {
    if (!is_built()) return;
    // As by a launcher that counts wrong.
    const Reports reports = form_at(nccl_over_standin(unique_run()), {"0", "3", "3"});
    check_told_of_one_gpu_each(reports, {1, 2}, "3");
    CHECK(reports[0][0] != "formed");
}

TEST_CASE("nccl: two members on one GPU are refused by NCCL itself") {
    if (!is_built()) return;
    if (gpus_here() == 0) {
        std::cout << "skipped: no GPU here\n";
        return;
    }
    check_told_of_one_gpu_each(form_at(nccl_on_gpus(unique_run()), {"0", "0"}), {0, 1}, "0");
}

TEST_CASE("nccl: members take the devices by turns where none is named") {
    if (!is_built()) return;
    const auto made = [](const std::string& place) {
        return load_collectives(
            NCCL_MODULE,
            {"run",
             {{"cuda_library", NCCL_STANDIN}, {"nccl_library", NCCL_STANDIN}, {"place", place}}});
    };
    CHECK(made("17").has_value());  // of sixteen, the second
    const auto wrong = made("second");
    REQUIRE(wrong.has_error());
    CHECK(wrong.error().text.find("a number from 0, not 'second'") != std::string::npos);
}

TEST_CASE("nccl: without a GPU the module fails at once and says what it looked for") {
    if (!is_built()) return;
    if (gpus_here() != 0) {
        std::cout << "skipped: this machine has a GPU\n";
        return;
    }
    const auto made = load_collectives(NCCL_MODULE, {"run", {}});
    REQUIRE(made.has_error());
    CHECK(made.error().code == ErrorCode::not_supported);
    INFO(made.error().text);
    CHECK(made.error().text.find("collectives over NCCL need") == 0);
    CHECK(made.error().text.find("libcudart.so") != std::string::npos);
    CHECK(made.error().text.find("shared_memory") != std::string::npos);
}

TEST_CASE("nccl: a library or device that is not there is named with the option that says where") {
    if (!is_built()) return;
    const auto nowhere =
        load_collectives(NCCL_MODULE, {"run", {{"cuda_library", "libno_such_cuda.so"}}});
    REQUIRE(nowhere.has_error());
    CHECK(nowhere.error().text.find("looked for as libno_such_cuda.so") != std::string::npos);
    CHECK(nowhere.error().text.find("sync.cuda_library") != std::string::npos);
    const auto device = load_collectives(
        NCCL_MODULE,
        {"run",
         {{"cuda_library", NCCL_STANDIN}, {"nccl_library", NCCL_STANDIN}, {"device", "99"}}});
    REQUIRE(device.has_error());
    CHECK(device.error().text.find("CUDA device 99") != std::string::npos);
    const auto unknown = load_collectives(NCCL_MODULE, {"run", {{"devise", "0"}}});
    REQUIRE(unknown.has_error());
    CHECK(unknown.error().text.find("unknown option 'devise'") != std::string::npos);
}

TEST_CASE("modules of collectives: what is none is refused with its path") {
    const auto missing = load_collectives("no_such_module.so", {});
    REQUIRE(missing.has_error());
    CHECK(missing.error().code == ErrorCode::not_supported);
    CHECK(missing.error().text.find("no_such_module.so") != std::string::npos);
    const auto other = load_collectives("/proc/self/exe", {});
    REQUIRE(other.has_error());
    CHECK(other.error().text.find("cannot be loaded") != std::string::npos);
}
