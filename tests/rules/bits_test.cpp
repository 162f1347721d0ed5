// Where Détente promises bits: no way of calling a rule may show in the result.
#include "common/rules/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/rules/bits_test.cpp"
#include "hwy/foreach_target.h"
//
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace detente::test {
namespace HWY_NAMESPACE {
std::int64_t compiled_for() { return HWY_TARGET; }
}  // namespace HWY_NAMESPACE
}  // namespace detente::test
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <catch2/catch.hpp>

#include "common/checksum.h"
#include "tests/rules/rule_cases.h"

namespace detente::test {
namespace {
HWY_EXPORT(compiled_for);

constexpr float kClip = 1.5F;

// Bits after a few in-place updates, the plain way of calling.
std::vector<std::uint32_t> plain_bits(const Rule& rule, const RuleConfig& config,
                                      std::size_t elements, float clip_value) {
    Block block(rule, draw(7, elements));
    for (std::uint64_t t = 1; t <= 3; ++t) {
        const std::vector<float> gradient = draw(70 + t, elements);
        rule.apply(step_at(config, t, clip_value), block.arrays(bytes_of(gradient).data()));
    }
    return block.bits();
}

TEST_CASE("rules: out of place gives the bits of in place, and leaves what it read alone") {
    for (const RuleCase& rule_case : every_rule()) {
        INFO(rule_case.title);
        const auto rule = make_rule(rule_case.config).value();
        for (const std::size_t elements : {5U, 64U, 777U}) {
            const std::vector<float> start = draw(7, elements);
            const std::vector<float> gradient = draw(8, elements);
            Block in_place(*rule, start);
            rule->apply(step_at(rule_case.config, 1), in_place.arrays(bytes_of(gradient).data()));

            Block source(*rule, start);
            AlignedBuffer spare(elements * sizeof(float));
            RuleArrays arrays = source.arrays(bytes_of(gradient).data());
            arrays.weights_out = spare.floats();
            rule->apply(step_at(rule_case.config, 1), arrays);
            CHECK(std::equal(start.begin(), start.end(), source.weights.floats().begin()));
            CHECK(std::memcmp(spare.data(), in_place.weights.data(), spare.size()) == 0);
            std::copy(spare.floats().begin(), spare.floats().end(),
                      source.weights.floats().begin());
            CHECK(source.bits() == in_place.bits());
        }
    }
}

TEST_CASE("rules: the gradient's address does not show in the bits") {
    constexpr std::size_t kElements = 203;
    for (const RuleCase& rule_case : every_rule()) {
        INFO(rule_case.title);
        const auto rule = make_rule(rule_case.config).value();
        const std::vector<float> gradient = draw(9, kElements);
        Block aligned(*rule, draw(7, kElements));
        rule->apply(step_at(rule_case.config, 1, kClip), aligned.arrays(bytes_of(gradient).data()));
        for (std::size_t offset = 0; offset < 64; ++offset) {
            AlignedBuffer frame(kElements * sizeof(float) + 64);
            std::memcpy(frame.data() + offset, gradient.data(), kElements * sizeof(float));
            Block shifted(*rule, draw(7, kElements));
            rule->apply(step_at(rule_case.config, 1, kClip), shifted.arrays(frame.data() + offset));
            CHECK(shifted.bits() == aligned.bits());
        }
    }
}

TEST_CASE("rules: every instruction set gives the same bits, for tails of every length") {
    for (const RuleCase& rule_case : every_rule()) {
        INFO(rule_case.title);
        const auto rule = make_rule(rule_case.config).value();
        for (std::size_t elements = 0; elements <= 67; ++elements) {
            INFO(elements << " elements");
            const float clip_value = elements % 2 == 0 ? 0 : kClip;
            const auto expected = plain_bits(*rule, rule_case.config, elements, clip_value);
            for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
                hwy::SetSupportedTargetsForTest(target);
                const bool dispatched = HWY_DYNAMIC_DISPATCH(compiled_for)() == target;
                const auto found = plain_bits(*rule, rule_case.config, elements, clip_value);
                hwy::SetSupportedTargetsForTest(0);
                INFO(hwy::TargetName(target));
                CHECK(dispatched);
                CHECK(found == expected);
            }
        }
    }
}

TEST_CASE("rules: an element's result does not depend on where in the array it lies") {
    constexpr std::size_t kElements = 67;
    for (const RuleCase& rule_case : every_rule()) {
        INFO(rule_case.title);
        const auto rule = make_rule(rule_case.config).value();
        const auto whole = plain_bits(*rule, rule_case.config, kElements, 0);
        for (std::size_t elements = 1; elements < kElements; ++elements) {
            const auto shorter = plain_bits(*rule, rule_case.config, elements, 0);
            CHECK(std::equal(shorter.begin(),
                             shorter.begin() + static_cast<std::ptrdiff_t>(elements),
                             whole.begin()));
        }
    }
}

TEST_CASE("rules: a block applied in chunks has the bits of the block applied whole") {
    constexpr std::size_t kElements = 1000;
    for (const RuleCase& rule_case : every_rule()) {
        INFO(rule_case.title);
        const auto rule = make_rule(rule_case.config).value();
        const auto whole = plain_bits(*rule, rule_case.config, kElements, kClip);
        for (const std::size_t chunk : {16U, 48U, 256U, 512U}) {
            Block block(*rule, draw(7, kElements));
            for (std::uint64_t t = 1; t <= 3; ++t) {
                const std::vector<float> gradient = draw(70 + t, kElements);
                const RuleArrays all = block.arrays(bytes_of(gradient).data());
                for (std::size_t from = 0; from < kElements; from += chunk) {
                    const std::size_t count = std::min(chunk, kElements - from);
                    const auto part = [&](std::span<float> slot) {
                        return slot.empty() ? slot : slot.subspan(from, count);
                    };
                    rule->apply(
                        step_at(rule_case.config, t, kClip),
                        {all.weights_in.subspan(from, count), all.weights_out.subspan(from, count),
                         all.gradient + from * sizeof(float), part(all.slot0), part(all.slot1)});
                }
            }
            CHECK(block.bits() == whole);
        }
    }
}

TEST_CASE("rules: bits are those of the first machine that ran this") {
    // Guards against a compiler that contracts, reorders or approximates. Adam's scalars go through
    // std::pow, so it is left to the reference.
    const std::vector<std::pair<std::string, std::uint64_t>> known = {
        {"sgd", 0x06F150547AA44C4DULL},
        {"sgd, Nesterov, decay", 0xB2B1FA5932E7C116ULL},
        {"adagrad", 0xE7F26F6BA96A1325ULL},
        {"rmsprop, momentum, decay", 0x6CDD8C18BDF0D530ULL}};
    for (const RuleCase& rule_case : every_rule()) {
        for (const auto& [title, checksum] : known) {
            if (title != rule_case.title) continue;
            INFO(title);
            const auto rule = make_rule(rule_case.config).value();
            const auto bits = plain_bits(*rule, rule_case.config, 67, 0);
            CHECK(checksum_of(std::as_bytes(std::span(bits))) == checksum);
        }
    }
}

}  // namespace
}  // namespace detente::test
#endif
