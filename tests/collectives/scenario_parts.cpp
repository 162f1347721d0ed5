#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "common/checksum.h"
#include "common/invariant.h"
#include "tests/collectives/scenarios.h"

namespace detente::testing {

Time clock_now() {
    return Time(
        std::chrono::duration_cast<Nanos>(std::chrono::steady_clock::now().time_since_epoch()));
}

WorkerId worker(std::size_t index) { return {static_cast<std::uint32_t>(3 * index + 2)}; }

Group group_of(std::uint64_t epoch, std::vector<std::size_t> indices) {
    Group group{{epoch}, {}};
    for (const std::size_t index : indices) group.members.push_back(worker(index));
    return group;
}

Group whole_group(std::uint64_t epoch, std::size_t count) {
    Group group{{epoch}, {}};
    for (std::size_t i = 0; i < count; ++i) group.members.push_back(worker(i));
    return group;
}

CollectiveKey key_of(std::uint64_t epoch, std::uint64_t step, std::uint32_t bucket) {
    return {{epoch}, {step}, {bucket}};
}

std::vector<float> gradient_of(std::size_t index, const CollectiveKey& key, std::size_t elements) {
    std::vector<float> values(elements);
    std::uint64_t state = 1000 * index + 100 * key.step.value + 10 * key.bucket.value + 1;
    for (float& value : values) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        value = static_cast<float>(static_cast<std::int64_t>(state >> 40U) - (1 << 23)) * 1e-6F;
    }
    return values;
}

Payload payload_of_floats(const std::vector<float>& values, bool odd_address) {
    const std::size_t bytes = values.size() * sizeof(float);
    auto buffer = std::make_shared<AlignedBuffer>(bytes + 1);
    std::byte* at = buffer->data() + (odd_address ? 1 : 0);
    if (bytes > 0) std::memcpy(at, values.data(), bytes);
    const std::span<const std::byte> all{at, bytes};
    return {std::move(buffer), all};
}

GradientShare share_of(std::size_t index, const CollectiveKey& key, std::size_t elements,
                       double weight) {
    return {elements, weight,
            payload_of_floats(gradient_of(index, key, elements), key.step.value % 2 == 1)};
}

std::vector<CollectiveEnd> ends_of(Collective& collective, std::size_t count) {
    std::vector<CollectiveEnd> ends;
    const Time until = clock_now() + std::chrono::seconds(10);
    for (Time now = clock_now(); ends.size() < count && now < until; now = clock_now()) {
        for (CollectiveEnd& end : collective.poll(now)) ends.push_back(std::move(end));
        if (ends.size() >= count) break;
        Time next = until;
        if (const auto deadline = collective.next_deadline()) next = std::min(next, *deadline);
        if (next > now) collective.wait(next - now);
    }
    return ends;
}

void wait_until_broken(Collective& collective) {
    const Time until = clock_now() + std::chrono::seconds(10);
    for (Time now = clock_now(); now < until; now = clock_now()) {
        collective.poll(now);
        if (collective.broken()) return;
        collective.wait(until - now);
    }
}

std::string text_of(const Broken& broken) {
    std::string text = std::string("broken: ") + name_of(broken.error.code) + ", missing";
    for (const WorkerId id : broken.missing) text += " " + to_string(node_of(id));
    return text;
}

std::string text_of(const CollectiveEnd& end) {
    if (const auto* averaged = std::get_if<Averaged>(&end.result)) {
        char text[80];
        std::snprintf(text, sizeof text, "averaged, weight %g, bits %016llx", averaged->weight_sum,
                      static_cast<unsigned long long>(checksum_of(averaged->mean.bytes)));
        return text;
    }
    if (const auto* broken = std::get_if<Broken>(&end.result)) return text_of(*broken);
    return "weightless";
}

double error_of(const Averaged& averaged, const CollectiveKey& key,
                const std::vector<double>& weights) {
    const std::size_t elements = averaged.mean.size() / sizeof(float);
    std::vector<double> sum(elements, 0.0);
    std::vector<double> scale(elements, 1e-30);
    for (std::size_t member = 0; member < weights.size(); ++member) {
        if (weights[member] == 0) continue;
        const std::vector<float> gradient = gradient_of(member, key, elements);
        for (std::size_t i = 0; i < elements; ++i) {
            sum[i] += weights[member] * static_cast<double>(gradient[i]) / averaged.weight_sum;
            scale[i] +=
                weights[member] * std::abs(static_cast<double>(gradient[i])) / averaged.weight_sum;
        }
    }
    double worst = 0;
    for (std::size_t i = 0; i < elements; ++i) {
        float mean = 0;
        std::memcpy(&mean, averaged.mean.bytes.data() + i * sizeof mean, sizeof mean);
        worst = std::max(worst, std::abs(static_cast<double>(mean) - sum[i]) / scale[i]);
    }
    return worst;
}

}  // namespace detente::testing
