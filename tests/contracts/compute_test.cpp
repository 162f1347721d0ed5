#include <catch2/catch.hpp>
#include <map>

#include "tests/contracts/runtime_under_test.h"
#include "tests/contracts/scripted_node.h"

namespace detente::testing {
namespace {
constexpr Nanos kDeadline = std::chrono::seconds(60);
constexpr NodeId kWorker = node_of(WorkerId{0});

Work work_of(std::uint64_t step) {
    GradientWork work;
    work.step = Step{step};
    return work;
}
std::uint64_t step_of(const Work& work) { return std::get<GradientWork>(work).step.value; }

}  // namespace

TEST_CASE(
    "runtime: every compute ticket ends exactly once, after its parts, one work at a time in "
    "order") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    std::atomic<int> running{0};
    std::atomic<bool> overlapped{false};
    std::vector<std::uint64_t> computed;
    ScriptedComputer computer([&](const Work& work, const auto&, const auto& part) -> WorkResult {
        if (running.fetch_add(1) != 0) overlapped = true;
        computed.push_back(step_of(work));
        for (std::uint32_t i = 0; i < 3; ++i) part(i, copy_of({}));
        running.fetch_sub(1);
        if (step_of(work) == 2) return fail(ErrorCode::bad_model, "as told");
        GradientOutcome outcome;
        return outcome;
    });
    std::map<std::uint64_t, int> ends;
    std::map<std::uint64_t, std::vector<std::uint32_t>> parts;
    bool part_after_end = false;
    std::vector<std::uint64_t> failed;
    ScriptedNode worker([&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            for (std::uint64_t step = 1; step <= 3; ++step) effects.compute(work_of(step));
        } else if (const auto* part = std::get_if<ComputePart>(&event)) {
            part_after_end = part_after_end || ends.contains(part->ticket.value);
            parts[part->ticket.value].push_back(part->index);
        } else if (const auto* ended = std::get_if<ComputeEnded>(&event)) {
            ++ends[ended->ticket.value];
            if (!ended->result) failed.push_back(ended->ticket.value);
            // One more event round, to see that nothing comes twice.
            if (ends.size() == 3) effects.after(std::chrono::milliseconds(5), {});
        } else if (std::holds_alternative<TimerFired>(event)) {
            effects.finish({});
        }
    });
    runtime->spawn(kWorker, worker, &computer);
    REQUIRE(runtime->run(kDeadline));
    CHECK_FALSE(overlapped);
    CHECK_FALSE(part_after_end);
    CHECK(computed == std::vector<std::uint64_t>{1, 2, 3});
    REQUIRE(ends.size() == 3);
    for (const auto& [ticket, count] : ends) {
        CHECK(count == 1);
        CHECK(parts[ticket] == std::vector<std::uint32_t>{0, 1, 2});
    }
    CHECK(failed.size() == 1);
}

TEST_CASE("runtime: a cancelled ticket still ends exactly once, before the next work begins") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    std::atomic<int> running{0};
    std::atomic<bool> overlapped{false};
    ScriptedComputer computer([&](const Work&, const auto& cancelled, const auto&) -> WorkResult {
        if (running.fetch_add(1) != 0) overlapped = true;
        const bool stop = cancelled.load();
        running.fetch_sub(1);
        if (stop) return fail(ErrorCode::cancelled, "between two tasks");
        GradientOutcome outcome;
        return outcome;
    });
    std::vector<std::uint64_t> ended_tickets;
    Ticket first;
    Ticket second;
    ScriptedNode worker([&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            first = effects.compute(work_of(1));
            effects.cancel(first);
            second = effects.compute(work_of(2));
        } else if (const auto* ended = std::get_if<ComputeEnded>(&event)) {
            ended_tickets.push_back(ended->ticket.value);
            effects.cancel(ended->ticket);  // ended: nothing
            effects.cancel(Ticket{4711});   // unknown: nothing
            if (ended->ticket == second) effects.after(std::chrono::milliseconds(5), {});
        } else if (std::holds_alternative<TimerFired>(event)) {
            effects.finish({});
        }
    });
    runtime->spawn(kWorker, worker, &computer);
    REQUIRE(runtime->run(kDeadline));
    CHECK_FALSE(overlapped);
    CHECK(ended_tickets == std::vector<std::uint64_t>{first.value, second.value});
}

}  // namespace detente::testing
