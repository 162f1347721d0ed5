#include "bench/collective_ranks.h"

#include <chrono>
#include <cstring>
#include <sstream>
#include <utility>
#include <vector>

#include "bench/report.h"
#include "common/invariant.h"
#include "worker/collectives/shared_memory.h"

namespace detente::bench {

namespace {

constexpr Nanos kDeadline = std::chrono::seconds(30);

Time now() {
    return Time(
        std::chrono::duration_cast<Nanos>(std::chrono::steady_clock::now().time_since_epoch()));
}

// One average from begin to the mean in hand.
void average(Collective& collective, std::uint64_t step, GradientShare share) {
    const auto begun = collective.begin({{1}, {step}, {0}}, std::move(share), now() + kDeadline);
    invariant(begun.has_value(), "the bench's own gradients can be averaged");
    for (;;) {
        const auto ends = collective.poll(now());
        if (ends.empty()) {
            collective.wait(kDeadline);
            continue;
        }
        invariant(std::holds_alternative<Averaged>(ends[0].result), "both ranks are there");
        return;
    }
}

struct Arrays {
    Arrays(std::size_t bytes, std::size_t rank) : from(bytes), to(bytes) {
        std::uint32_t i = 0;
        for (float& value : from.floats()) {
            value = 1e-3F * static_cast<float>(1 + (++i + rank) % 1000);
        }
        for (float& value : to.floats()) value = 0;
    }
    AlignedBuffer from;
    AlignedBuffer to;
};

struct Way {
    std::string name;
    std::function<void()> work;
};

std::map<std::string, double> measure_size(const RankSetup& setup, Collective& collective,
                                           std::uint64_t& step, std::size_t bytes) {
    Arrays arrays(bytes, setup.rank);
    const std::size_t elements = bytes / sizeof(float);
    auto buffer = collective.buffer(bytes);
    invariant(buffer.has_value(), "the bench's arena holds its gradients");
    std::memcpy(buffer->bytes.data(), arrays.from.data(), bytes);
    const Payload in_place = buffer->payload();
    const Payload elsewhere{nullptr, {arrays.from.data(), bytes}};
    std::vector<Way> ways{
        {"memcpy", [&] { std::memcpy(arrays.to.data(), arrays.from.data(), bytes); }},
        {"in place",
         [&] {
             average(collective, ++step, {elements, 1, in_place});
         }},
        {"copied", [&] {
             average(collective, ++step, {elements, 1, elsewhere});
         }}};
    if (setup.mpi_sum) {
        ways.push_back({"mpi", [&] {
                            setup.mpi_sum(arrays.from.floats().data(), arrays.to.floats().data(),
                                          elements);
                        }});
    }
    // Small ones are timed several at a time; every way is warm before the first round.
    const std::size_t repeats = bytes >= (1U << 24U) ? 1 : bytes >= (1U << 20U) ? 5 : 50;
    const std::size_t rounds = setup.quick ? 3 : 15;
    std::map<std::string, std::vector<double>> seconds;
    for (std::size_t round = 0; round <= rounds; ++round) {
        for (const Way& way : ways) {
            setup.barrier();
            const double taken = seconds_of([&] {
                for (std::size_t i = 0; i < repeats; ++i) way.work();
                setup.barrier();
            });
            if (round > 0) seconds[way.name].push_back(taken / static_cast<double>(repeats));
        }
    }
    std::map<std::string, double> medians;
    for (auto& [name, list] : seconds) medians[name] = median(std::move(list));
    return medians;
}

}  // namespace

RankTimes measure_ranks(const RankSetup& setup) {
    SharedMemoryBackend backend({setup.run, std::size_t{512} << 20U, 0});
    const Group group{{1}, {WorkerId{0}, WorkerId{1}}};
    const WorkerId self{static_cast<std::uint32_t>(setup.rank)};
    auto formed = backend.form(group, self, kDeadline);
    invariant(formed.has_value(), "two processes of one host form a group");
    std::vector<std::size_t> sizes{1U << 16U, 1U << 18U, 1U << 20U};
    if (!setup.quick) {
        for (const std::size_t size : {1U << 22U, 1U << 24U, 1U << 26U}) sizes.push_back(size);
    }
    RankTimes times;
    std::uint64_t step = 0;
    for (const std::size_t bytes : sizes) {
        times[bytes] = measure_size(setup, **formed, step, bytes);
    }
    setup.barrier();
    return times;
}

std::string text_of(const RankTimes& times) {
    std::ostringstream text;
    text.precision(9);
    for (const auto& [bytes, ways] : times) {
        for (const auto& [name, seconds] : ways) {
            text << bytes << " " << seconds << " " << name << "\n";
        }
    }
    return text.str();
}

RankTimes times_of(const std::string& text) {
    RankTimes times;
    std::istringstream lines(text);
    std::size_t bytes = 0;
    double seconds = 0;
    for (std::string name; lines >> bytes >> seconds && std::getline(lines >> std::ws, name);) {
        times[bytes][name] = seconds;
    }
    return times;
}

}  // namespace detente::bench
