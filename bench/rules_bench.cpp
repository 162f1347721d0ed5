// Update rules, checksum and finiteness beside memory: what one parameter costs, and what a bare
// loop costs that moves the same bytes. Out of every cache (64 MiB per array) and in blocks of 1
// MiB, which is how a shard meets them.
#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/report.h"
#include "common/checksum.h"
#include "common/invariant.h"
#include "common/payload.h"
#include "common/rules/rule.h"

namespace detente::bench {
namespace {

// As wide as the machine allows, so that the limit is the memory's and not the compiler's default.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define DETENTE_WIDEST __attribute__((target_clones("avx512f", "avx2", "default"), noinline))
#else
#define DETENTE_WIDEST __attribute__((noinline))
#endif

// The limits: loops with the traffic of a rule with no, one and two arrays of state.
DETENTE_WIDEST void stream_2_reads_1_write(float* __restrict w, const float* __restrict g,
                                           std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) w[i] += g[i];
}
DETENTE_WIDEST void stream_3_reads_2_writes(float* __restrict w, const float* __restrict g,
                                            float* __restrict a, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
        w[i] += g[i];
        a[i] += g[i];
    }
}
DETENTE_WIDEST void stream_4_reads_3_writes(float* __restrict w, const float* __restrict g,
                                            float* __restrict a, float* __restrict b,
                                            std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
        w[i] += g[i];
        a[i] += g[i];
        b[i] += g[i];
    }
}
DETENTE_WIDEST std::uint64_t stream_read(const std::uint64_t* words, std::size_t count) {
    std::uint64_t all = 0;
    for (std::size_t i = 0; i < count; ++i) all |= words[i];
    return all;
}

struct Arrays {
    explicit Arrays(std::size_t bytes)
        : weights(bytes), gradient(bytes), slot0(bytes), slot1(bytes) {
        // All positive, so that sums of the limits' loops stay what square roots accept.
        for (AlignedBuffer* buffer : {&weights, &gradient, &slot0, &slot1}) {
            std::uint32_t i = 0;
            for (float& value : buffer->floats()) {
                value = 1e-3F * static_cast<float>(1 + ++i % 1000);
            }
        }
    }
    std::span<const std::byte> gradient_bytes() const { return {gradient.data(), gradient.size()}; }
    AlignedBuffer weights, gradient, slot0, slot1;
};

struct Case {
    std::string title;
    std::unique_ptr<const Rule> rule;
};
std::vector<Case> cases() {
    std::vector<Case> list;
    const auto add = [&list](const char* title, const char* name, auto set) {
        RuleConfig config = rule_defaults(name).value();
        set(config);
        list.push_back({title, make_rule(config).value()});
    };
    const auto plain = [](RuleConfig&) {};
    add("sgd", "sgd", plain);
    add("sgd momentum", "sgd", [](RuleConfig& c) { c.momentum = 0.9; });
    add("sgd Nesterov", "sgd", [](RuleConfig& c) {
        c.momentum = 0.9;
        c.nesterov = true;
    });
    add("adagrad", "adagrad", plain);
    add("rmsprop", "rmsprop", plain);
    add("rmsprop momentum", "rmsprop", [](RuleConfig& c) { c.momentum = 0.9; });
    add("adam", "adam", plain);
    add("adamw", "adamw", plain);
    return list;
}

// Applies `rule` in place to the block that starts at byte `from`.
void apply_block(const Rule& rule, Arrays& arrays, std::size_t from, std::size_t block_bytes) {
    const auto part = [&](AlignedBuffer& buffer) {
        return buffer.floats().subspan(from / sizeof(float), block_bytes / sizeof(float));
    };
    const RuleStep step{1e-6, 1000, 0};
    rule.apply(step, {part(arrays.weights), part(arrays.weights), arrays.gradient.data() + from,
                      rule.slots() >= 1 ? part(arrays.slot0) : std::span<float>(),
                      rule.slots() >= 2 ? part(arrays.slot1) : std::span<float>()});
}
void apply_all(const Rule& rule, Arrays& arrays, std::size_t block_bytes) {
    for (std::size_t from = 0; from < arrays.weights.size(); from += block_bytes) {
        apply_block(rule, arrays, from, block_bytes);
    }
}

void limit_all(int slots, Arrays& arrays) {
    float* w = arrays.weights.floats().data();
    const float* g = arrays.gradient.floats().data();
    float* a = arrays.slot0.floats().data();
    float* b = arrays.slot1.floats().data();
    const std::size_t count = arrays.weights.size() / sizeof(float);
    if (slots == 0) stream_2_reads_1_write(w, g, count);
    if (slots == 1) stream_3_reads_2_writes(w, g, a, count);
    if (slots == 2) stream_4_reads_3_writes(w, g, a, b, count);
}

// `bytes` per array, `repeats` passes per timing (small arrays need several to be timed).
void measure_rules(Report& report, const Options& options, const std::string& where,
                   std::size_t bytes, std::size_t repeats, std::size_t rounds) {
    Arrays arrays(bytes);
    std::vector<Case> list;
    for (Case& one : cases()) {
        if (options.wants(one.title + where)) list.push_back(std::move(one));
    }
    // Each rule right after the limit of its own traffic, so that both see the same seconds.
    std::vector<std::function<void()>> works;
    for (const Case& one : list) {
        works.emplace_back([&, slots = one.rule->slots()] {
            for (std::size_t i = 0; i < repeats; ++i) limit_all(slots, arrays);
        });
        works.emplace_back([&, rule = one.rule.get()] {
            for (std::size_t i = 0; i < repeats; ++i) apply_all(*rule, arrays, bytes);
        });
    }
    const std::vector<double> seconds = interleaved_medians(works, rounds);
    const double parameters = static_cast<double>(bytes / sizeof(float) * repeats);
    for (std::size_t i = 0; i < list.size(); ++i) {
        const double moved = parameters * sizeof(float) * (3 + 2 * list[i].rule->slots());
        const double limit = seconds[2 * i];
        const double found = seconds[2 * i + 1];
        report.add({list[i].title + where, found / parameters * 1e9, "ns/parameter",
                    limit / parameters * 1e9, ""});
        report.add({list[i].title + where + " rate", moved / found / 1e9, "GB/s",
                    moved / limit / 1e9, ""});
    }
}

void measure_checks(Report& report, const Options& options, const std::string& where,
                    std::size_t bytes, std::size_t repeats, std::size_t rounds) {
    if (!options.wants("checksum" + where) && !options.wants("finiteness" + where) &&
        !options.wants("verify" + where)) {
        return;
    }
    const Arrays arrays(bytes);
    const auto gradient = arrays.gradient_bytes();
    const std::uint64_t sum = checksum_of(gradient);
    const auto* words = reinterpret_cast<const std::uint64_t*>(gradient.data());
    const auto times = [repeats](auto check) {
        return [repeats, check] {
            bool right = true;
            for (std::size_t i = 0; i < repeats; ++i) right = check() && right;
            invariant(right, "the bytes are as they were made");
        };
    };
    const std::vector<double> seconds = interleaved_medians(
        {times([=] { return stream_read(words, bytes / sizeof(std::uint64_t)) != 0; }),
         times([=] { return checksum_of(gradient) == sum; }),
         times([=] { return all_finite(gradient); }),
         times([=] { return verify_block(gradient, sum).has_value(); })},
        rounds);
    const double read = static_cast<double>(bytes * repeats) / 1e9;
    const char* names[] = {"checksum", "finiteness", "verify"};
    for (int i = 0; i < 3; ++i) {
        report.add({names[i] + where, read / seconds[static_cast<std::size_t>(i) + 1], "GB/s",
                    read / seconds[0], "limit: reading the bytes"});
    }
}

// What a shard does with a push: verify a block, then apply it while it is still in a cache.
void measure_verify_and_apply(Report& report, const Options& options, std::size_t bytes,
                              std::size_t block_bytes, std::size_t rounds) {
    constexpr const char* kNames[] = {"sgd", "adam"};
    for (const char* name : kNames) {
        const std::string title = fmt::format("verify+apply {} 1 MiB blocks", name);
        if (!options.wants(title)) continue;
        Arrays arrays(bytes);
        const auto rule = make_rule(rule_defaults(name).value()).value();
        std::vector<std::uint64_t> sums;
        for (std::size_t from = 0; from < bytes; from += block_bytes) {
            sums.push_back(checksum_of(arrays.gradient_bytes().subspan(from, block_bytes)));
        }
        const auto push = [&] {
            for (std::size_t i = 0; i < sums.size(); ++i) {
                const auto frame = arrays.gradient_bytes().subspan(i * block_bytes, block_bytes);
                invariant(verify_block(frame, sums[i]).has_value(), "the block is as it was made");
                apply_block(*rule, arrays, i * block_bytes, block_bytes);
            }
        };
        const auto seconds =
            interleaved_medians({[&] { limit_all(rule->slots(), arrays); },
                                 [&] { apply_all(*rule, arrays, block_bytes); }, push},
                                rounds);
        const double parameters = static_cast<double>(bytes / sizeof(float));
        report.add({title, seconds[2] / parameters * 1e9, "ns/parameter",
                    seconds[0] / parameters * 1e9,
                    fmt::format("apply alone {:.3g}", seconds[1] / parameters * 1e9)});
    }
}

int run(int argc, char** argv) {
    const Options options = parse_options(
        argc, argv, "Update rules, checksum and finiteness beside the memory's bandwidth.");
    const std::size_t large = options.quick ? std::size_t{4} << 20 : std::size_t{64} << 20;
    const std::size_t block = std::size_t{1} << 20;
    const std::size_t rounds = options.quick ? 1 : 15;
    const std::size_t repeats = options.quick ? 1 : 16;
    Report report("Update rules and checks", options);
    report.remark(
        fmt::format("{} MiB per array, then 1 MiB per array (repeated, in cache)", large >> 20));
    report.remark("limit: a bare loop that reads and writes the same arrays, run in turns with it");
    const std::string out_of_cache = fmt::format(" {} MiB", large >> 20);
    measure_rules(report, options, out_of_cache, large, 1, rounds);
    measure_rules(report, options, " 1 MiB", block, repeats, rounds);
    measure_checks(report, options, out_of_cache, large, 1, rounds);
    measure_checks(report, options, " 1 MiB", block, repeats, rounds);
    measure_verify_and_apply(report, options, large, block, rounds);
    report.print();
    return 0;
}

}  // namespace
}  // namespace detente::bench

int main(int argc, char** argv) { return detente::bench::run(argc, argv); }
