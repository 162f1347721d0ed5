// What the tests of rules have in common: every form of every rule, and a block to apply it to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/payload.h"
#include "common/random.h"
#include "common/rules/rule.h"

namespace detente::test {

struct RuleCase {
    std::string title;
    RuleConfig config;
};

inline std::vector<RuleCase> every_rule() {
    const auto rule = [](const char* name, auto set) {
        RuleConfig config = rule_defaults(name).value();
        config.learning_rate = 1e-2;
        set(config);
        return config;
    };
    return {
        {"sgd", rule("sgd", [](RuleConfig&) {})},
        {"sgd, decay", rule("sgd", [](RuleConfig& c) { c.weight_decay = 0.05; })},
        {"sgd, momentum", rule("sgd", [](RuleConfig& c) { c.momentum = 0.9; })},
        {"sgd, Nesterov, decay", rule("sgd",
                                      [](RuleConfig& c) {
                                          c.momentum = 0.8;
                                          c.nesterov = true;
                                          c.weight_decay = 0.01;
                                      })},
        {"adagrad", rule("adagrad", [](RuleConfig&) {})},
        {"adagrad, decay, accumulator", rule("adagrad",
                                             [](RuleConfig& c) {
                                                 c.weight_decay = 0.02;
                                                 c.initial_accumulator_value = 0.1;
                                             })},
        {"rmsprop", rule("rmsprop", [](RuleConfig&) {})},
        {"rmsprop, momentum, decay", rule("rmsprop",
                                          [](RuleConfig& c) {
                                              c.alpha = 0.95;
                                              c.momentum = 0.7;
                                              c.weight_decay = 0.01;
                                          })},
        {"adam", rule("adam", [](RuleConfig&) {})},
        {"adam, decay, betas", rule("adam",
                                    [](RuleConfig& c) {
                                        c.beta1 = 0.8;
                                        c.beta2 = 0.95;
                                        c.eps = 1e-4;
                                        c.weight_decay = 0.03;
                                    })},
        {"adamw", rule("adamw", [](RuleConfig& c) { c.weight_decay = 0.1; })},
    };
}

// Floats around zero, a few of them exactly zero, the same on every machine.
inline std::vector<float> draw(std::uint64_t seed, std::size_t count, double scale = 1) {
    Random random(random_key(seed, Purpose::test));
    std::vector<float> values(count);
    for (float& value : values) {
        // Spread 1, from sums alone: no library function whose last bit differs between machines.
        const double sum = random.uniform() + random.uniform() + random.uniform();
        value = random.below(29) == 0 ? 0.0F : static_cast<float>(scale * 2 * (sum - 1.5));
    }
    return values;
}

inline std::span<const std::byte> bytes_of(const std::vector<float>& values) {
    return std::as_bytes(std::span<const float>(values));
}

// Weights and state of one block, 64-byte aligned as RuleArrays asks.
struct Block {
    Block(const Rule& rule, const std::vector<float>& start)
        : slots(rule.slots()),
          weights(start.size() * sizeof(float)),
          slot0(start.size() * sizeof(float)),
          slot1(start.size() * sizeof(float)) {
        std::copy(start.begin(), start.end(), weights.floats().begin());
        for (float& value : slot0.floats()) value = rule.initial_slot(0);
        for (float& value : slot1.floats()) value = rule.initial_slot(1);
    }

    RuleArrays arrays(const std::byte* gradient) {
        return {weights.floats(), weights.floats(), gradient,
                slots >= 1 ? slot0.floats() : std::span<float>(),
                slots >= 2 ? slot1.floats() : std::span<float>()};
    }
    // All bits of the block, to compare.
    std::vector<std::uint32_t> bits() const {
        std::vector<std::uint32_t> all;
        for (const AlignedBuffer* buffer : {&weights, &slot0, &slot1}) {
            const std::size_t from = all.size();
            all.resize(from + buffer->size() / sizeof(float));
            if (buffer->size() > 0) {
                std::memcpy(all.data() + from, buffer->data(), buffer->size());
            }
        }
        return all;
    }

    int slots;
    AlignedBuffer weights;
    AlignedBuffer slot0;
    AlignedBuffer slot1;
};

inline RuleStep step_at(const RuleConfig& config, std::uint64_t update, float clip_value = 0) {
    return {config.learning_rate, update, clip_value};
}

}  // namespace detente::test
