// Gramian, combine, and both for T tasks of d parameters, each beside the time to read J (T rows of
// d floats) once, measured interleaved in the same run; and how long solves take, on
// gradients of three kinds.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "bench/report.h"
#include "common/conflict/aggregator.h"
#include "common/conflict/gramian.h"
#include "common/conflict/gramian_kernels.h"
#include "common/random.h"

namespace {
using namespace detente;

// The task gradients, touched once so that no page is fresh when the clock runs.
struct Gradients {
    Gradients(std::size_t tasks, std::size_t elements, std::uint64_t seed = 1)
        : values(tasks * elements), combined(elements), rows(tasks) {
        Random random(random_key(seed, Purpose::test, {tasks, elements}));
        for (float& x : values) x = static_cast<float>(random.uniform()) - 0.5F;
        for (std::size_t i = 0; i < tasks; ++i) rows[i] = values.data() + i * elements;
    }
    std::vector<float> values;
    std::vector<float> combined;
    std::vector<const float*> rows;
};

// The limit: every byte of J loaded once, with as little arithmetic as keeps the loads alive, from
// kStreams places at once (several streams are what one core reads fastest).
using Words = std::uint64_t __attribute__((vector_size(16)));
template <std::size_t kStreams>
std::uint64_t read_once(const std::vector<float>& values) {
    constexpr std::size_t kWords = 4;  // of 16 bytes: a cache line
    const std::size_t part_bytes = values.size() * sizeof(float) / kStreams / 64 * 64;
    const auto* bytes = reinterpret_cast<const char*>(values.data());
    Words s0{};
    Words s1{};
    Words s2{};
    Words s3{};
    for (std::size_t at = 0; at < part_bytes; at += 64) {
        for (std::size_t stream = 0; stream < kStreams; ++stream) {
            Words line[kWords];
            std::memcpy(line, bytes + stream * part_bytes + at, sizeof(line));
            s0 += line[0];
            s1 += line[1];
            s2 += line[2];
            s3 += line[3];
        }
    }
    const Words sum = (s0 + s1) + (s2 + s3);
    return sum[0] + sum[1];
}

void measure_passes(std::size_t tasks, std::size_t elements, std::size_t rounds,
                    bench::Report& report) {
    Gradients gradients(tasks, elements);
    const std::vector<double> weights(tasks, 1.0 / static_cast<double>(tasks));
    volatile std::uint64_t read = 0;
    volatile double norm = 0;
    const auto gramian = [&] {
        Gramian g(tasks);
        g.add_block(gradients.rows, elements);
        norm = g.at(0, 0);
    };
    const auto combined = [&] { combine(weights, gradients.rows, gradients.combined); };
    const std::vector<double> seconds =
        bench::interleaved_medians({gramian, combined,
                                    [&] {
                                        gramian();
                                        combined();
                                    },
                                    [&] { read = read_once<1>(gradients.values); },
                                    [&] { read = read_once<2>(gradients.values); },
                                    [&] { read = read_once<4>(gradients.values); }},
                                   rounds);
    const double limit_ms = std::min({seconds[3], seconds[4], seconds[5]}) * 1e3;
    const std::string shape = "T=" + std::to_string(tasks) + " d=" + std::to_string(elements);
    const double gbps = static_cast<double>(gradients.values.size() * sizeof(float)) / 1e9;
    report.remark(shape + ": reading J once " + std::to_string(gbps / limit_ms * 1e3) + " GB/s");
    report.add({"Gramian " + shape, seconds[0] * 1e3, "ms", limit_ms, ""});
    report.add({"combine " + shape, seconds[1] * 1e3, "ms", limit_ms, "writes d floats too"});
    report.add({"Gramian+combine " + shape, seconds[2] * 1e3, "ms", limit_ms,
                tasks <= 8 ? "aim <= 3" : "aim <= 5"});
}
// What a step costs in all, as other libraries offer it in one call: from the rows to the combined
// gradient. Asked for by name (--filter "aggregate …"): bench/beside_torchjd does.
void measure_whole(const std::string& method, std::size_t tasks, std::size_t elements,
                   std::size_t rounds, bench::Report& report) {
    const std::string name =
        "aggregate " + method + " T=" + std::to_string(tasks) + " d=" + std::to_string(elements);
    const auto aggregator = make_aggregator({method, {}});
    if (!aggregator) return report.remark(name + ": " + aggregator.error().text);
    Gradients gradients(tasks, elements);
    AggregatorState state = aggregator.value()->initial_state(tasks);
    const std::vector<double> ones(tasks, 1.0);
    std::string failed;
    volatile std::uint64_t read = 0;
    const auto whole = [&] {
        const AggregatorNeeds needs = aggregator.value()->needs();
        Gramian g(tasks);
        if (needs.coordinates) {
            CoordinateRows<float> rows;
            rows.rows = gradients.rows;
            rows.random_key = 7;
            return aggregator.value()->combine(rows, gradients.combined);
        }
        if (needs.gramian) g.add_block(gradients.rows, elements);
        const auto output = aggregator.value()->weights({&g, ones, 7, &g, ones}, state);
        if (!output) failed = output.error().text;
        if (output) combine(output->weights, gradients.rows, gradients.combined);
    };
    const std::vector<double> seconds =
        bench::interleaved_medians({whole, [&] { read = read_once<4>(gradients.values); }}, rounds);
    if (!failed.empty()) return report.remark(name + ": " + failed);
    report.add({name, seconds[0] * 1e3, "ms", seconds[1] * 1e3, "limit: reading J once"});
}

std::string residual_text(double residual) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.0e", residual);
    return text;
}

// What solves are measured on, all in 3·T dimensions. Tasks at odds take longer: more constraints
// are active, and the equations are nearly singular.
enum class Kind { uniform, conflicting, half_opposite };
constexpr Kind kKinds[] = {Kind::uniform, Kind::conflicting, Kind::half_opposite};
const char* name_of(Kind kind) {
    switch (kind) {
        case Kind::uniform:
            return "uniform";
        case Kind::conflicting:
            return "conflicting";
        case Kind::half_opposite:
            break;
    }
    return "half opposite";
}

// Conflicting: a thousandth of the mean is left, so that hardly any direction serves all tasks.
// Half opposite: each row of the second half is one of the first half turned round, and a
// hundredth of itself.
void make(Kind kind, std::size_t elements, Gradients& gradients) {
    const std::size_t tasks = gradients.rows.size();
    for (std::size_t e = 0; e < elements && kind == Kind::conflicting; ++e) {
        float sum = 0;
        for (std::size_t i = 0; i < tasks; ++i) sum += gradients.values[i * elements + e];
        const float part = 0.999F * sum / static_cast<float>(tasks);
        for (std::size_t i = 0; i < tasks; ++i) gradients.values[i * elements + e] -= part;
    }
    for (std::size_t i = tasks / 2; i < tasks && kind == Kind::half_opposite; ++i) {
        for (std::size_t e = 0; e < elements; ++e) {
            float& own = gradients.values[i * elements + e];
            own = 0.01F * own - gradients.values[(i - tasks / 2) * elements + e];
        }
    }
}

std::string solve_name(const AggregatorConfig& method, std::size_t tasks, Kind kind) {
    std::string name = "solve " + method.name;
    for (const auto& [key, value] : method.parameters) name += " " + key + "=" + value;
    return name + " T=" + std::to_string(tasks) + " " + name_of(kind);
}

// The limit is the aim.
void measure_solve(const AggregatorConfig& method, std::size_t tasks, Kind kind, double aim_us,
                   std::size_t rounds, bench::Report& report) {
    const std::string name = solve_name(method, tasks, kind);
    const auto aggregator = make_aggregator(method);
    if (!aggregator) return report.remark(name + ": " + aggregator.error().text);
    constexpr std::size_t kProblems = 50;
    std::vector<Gramian> problems;
    for (std::size_t k = 0; k < kProblems; ++k) {
        Gradients gradients(tasks, 3 * tasks, k);
        make(kind, 3 * tasks, gradients);
        problems.emplace_back(tasks);
        problems.back().add_block(gradients.rows, 3 * tasks);
    }
    AggregatorState state = aggregator.value()->initial_state(tasks);
    const std::vector<double> ones(tasks, 1.0);
    double worst = 0;
    std::string failed;
    const std::vector<double> seconds =
        bench::interleaved_medians({[&] {
                                       for (std::size_t k = 0; k < kProblems; ++k) {
                                           const auto output = aggregator.value()->weights(
                                               {&problems[k], ones, k, &problems[k], ones}, state);
                                           if (!output) failed = output.error().text;
                                           if (output && output->kkt_residual)
                                               worst = std::max(worst, *output->kkt_residual);
                                       }
                                   }},
                                   rounds);
    if (!failed.empty()) return report.remark(name + ": " + failed);
    report.add({name, seconds[0] / kProblems * 1e6, "us", aim_us,
                worst > 0 ? "limit is the aim; worst KKT residual " + residual_text(worst)
                          : "limit is the aim"});
}

void measure_solves(const AggregatorConfig& method, std::size_t rounds,
                    const bench::Options& options, bench::Report& report) {
    for (const auto& [tasks, aim_us] : {std::pair{2, 100.0}, {8, 100.0}, {32, 1000.0}}) {
        for (const Kind kind : kKinds) {
            const auto count = static_cast<std::size_t>(tasks);
            if (!options.wants(solve_name(method, count, kind))) continue;
            measure_solve(method, count, kind, aim_us, rounds, report);
        }
    }
}
}  // namespace

int main(int argc, char** argv) {
    const bench::Options options =
        bench::parse_options(argc, argv, "Gramian and combine beside reading J once; solves");
    bench::Report report("Conflict engine, one thread", options);
    const std::size_t rounds = options.quick ? 1 : 9;
    report.remark(std::string("instruction set ") + kernels::instruction_set());
    for (const std::size_t tasks : {2, 8, 32}) {
        for (const std::size_t elements : {1000000, 10000000, 100000000}) {
            // What a small machine can hold; the largest are timed less often.
            if (tasks * elements > 1000000000) continue;
            const std::size_t d = options.quick ? elements / 100 : elements;
            if (options.wants("T=" + std::to_string(tasks) + " d=" + std::to_string(d))) {
                measure_passes(tasks, d,
                               elements > 10000000 ? std::min<std::size_t>(rounds, 3) : rounds,
                               report);
            }
        }
    }
    for (const std::string& method : aggregator_names()) {
        for (const std::size_t tasks : {2, 8, 32}) {
            for (const std::size_t elements : {1000000, 10000000}) {
                const std::string name = "aggregate " + method + " T=" + std::to_string(tasks) +
                                         " d=" + std::to_string(elements);
                if (options.filter == name || options.filter == "aggregate") {
                    measure_whole(method, tasks, elements, rounds, report);
                }
            }
        }
        measure_solves({method, {}}, rounds, options, report);
    }
    // Beside its default, which is nash: a fairness for which x falls by many orders.
    measure_solves({"fairgrad", {{"alpha", "5"}}}, rounds, options, report);
    report.print();
}
