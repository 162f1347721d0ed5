#include "common/checksum.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <limits>
#include <string_view>
#include <vector>

#include "common/random.h"
#include "common/rules/targets.h"
#include "hwy/targets.h"

namespace detente {
namespace {

std::vector<std::byte> floats(std::size_t count, std::size_t offset = 0) {
    Random random(random_key(5, Purpose::test));
    std::vector<std::byte> bytes(offset + count * sizeof(float));
    for (std::size_t i = 0; i < count; ++i) {
        const auto value = static_cast<float>(random.normal() * 1e30);
        std::memcpy(bytes.data() + offset + i * sizeof(float), &value, sizeof(value));
    }
    return bytes;
}
void put(std::vector<std::byte>& bytes, std::size_t element, float value, std::size_t offset = 0) {
    std::memcpy(bytes.data() + offset + element * sizeof(float), &value, sizeof(value));
}

constexpr float kInfinite = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST_CASE("checksum: is XXH3-64 as published") {
    CHECK(checksum_of({}) == 0x2D06800538D394C2ULL);
    const std::string_view text = "abc";
    CHECK(checksum_of(std::as_bytes(std::span(text))) == 0x78AF5F94892F3950ULL);
}

TEST_CASE("checksum: one flipped bit anywhere shows") {
    std::vector<std::byte> bytes = floats(700);
    const std::uint64_t before = checksum_of(bytes);
    for (std::size_t i = 0; i < bytes.size(); i += 37) {
        bytes[i] ^= std::byte{4};
        CHECK(checksum_of(bytes) != before);
        bytes[i] ^= std::byte{4};
    }
    CHECK(checksum_of(bytes) == before);
}

TEST_CASE("finiteness: one NaN or infinity is found at every place, length and address") {
    for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
        hwy::SetSupportedTargetsForTest(target);
        INFO(hwy::TargetName(target));
        bool right = true;
        for (const std::size_t offset : {0U, 1U, 6U}) {
            for (const std::size_t count : {0U, 1U, 3U, 15U, 16U, 17U, 63U, 64U, 130U}) {
                std::vector<std::byte> bytes = floats(count, offset);
                const auto view = std::span<const std::byte>(bytes).subspan(offset);
                right = right && all_finite(view) && !first_not_finite(view);
                for (std::size_t i = 0; i < count; ++i) {
                    for (const float bad : {kNan, -kNan, kInfinite, -kInfinite}) {
                        float saved = 0;
                        std::memcpy(&saved, view.data() + i * sizeof(float), sizeof(saved));
                        put(bytes, i, bad, offset);
                        right = right && !all_finite(view) && first_not_finite(view) == i;
                        put(bytes, i, saved, offset);
                    }
                }
            }
        }
        hwy::SetSupportedTargetsForTest(0);
        CHECK(right);
    }
}

TEST_CASE("finiteness: the largest, the smallest and minus zero are finite") {
    std::vector<std::byte> bytes = floats(40);
    const std::vector<float> extremes = {std::numeric_limits<float>::max(),
                                         std::numeric_limits<float>::lowest(),
                                         std::numeric_limits<float>::denorm_min(), -0.0F, 0.0F};
    for (std::size_t i = 0; i < extremes.size(); ++i) put(bytes, 7 * i, extremes[i]);
    CHECK(all_finite(bytes));
}

TEST_CASE("verify: bytes as sent pass, with and without a checksum, whatever their length") {
    // Around the tile, and around XXH3's internal buffer and stripes.
    for (const std::size_t count : {0U, 1U, 5U, 59U, 61U, 64U, 2047U, 2048U, 2049U, 40000U}) {
        for (const std::size_t offset : {0U, 3U}) {
            INFO(count << " floats at offset " << offset);
            const std::vector<std::byte> bytes = floats(count, offset);
            const auto view = std::span<const std::byte>(bytes).subspan(offset);
            CHECK(verify_block(view, checksum_of(view)).has_value());
            CHECK(verify_block(view, std::nullopt).has_value());
        }
    }
}

TEST_CASE("verify: altered bytes are a bad checksum, also where they made a NaN") {
    std::vector<std::byte> bytes = floats(20000);
    const std::uint64_t sent = checksum_of(bytes);
    bytes[70001] ^= std::byte{1};
    CHECK(verify_block(bytes, sent).error().code == ErrorCode::bad_checksum);
    bytes[70001] ^= std::byte{1};
    put(bytes, 9000, kNan);
    const auto verdict = verify_block(bytes, sent);
    CHECK(verdict.error().code == ErrorCode::bad_checksum);
    CHECK(verdict.error().text.find("80000 bytes") != std::string::npos);
}

TEST_CASE("verify: a sender's NaN or infinity is named by its first element") {
    std::vector<std::byte> bytes = floats(20000);
    put(bytes, 19000, kNan);
    put(bytes, 8195, -kInfinite);
    for (const auto expected :
         {std::optional(checksum_of(bytes)), std::optional<std::uint64_t>()}) {
        const auto verdict = verify_block(bytes, expected);
        REQUIRE(!verdict.has_value());
        CHECK(verdict.error().code == ErrorCode::not_finite);
        CHECK(verdict.error().text.find("-inf at element 8195 of 20000") != std::string::npos);
    }
}

TEST_CASE("verify: bytes that are no whole floats are refused by length") {
    const std::vector<std::byte> bytes(4099);
    CHECK(verify_block(bytes, checksum_of(bytes)).error().code == ErrorCode::bad_length);
}

}  // namespace
}  // namespace detente
