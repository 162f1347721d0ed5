#include "tests/collectives/scenarios.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>

#include "common/invariant.h"

namespace detente::testing {

namespace {

constexpr Nanos kForming = std::chrono::seconds(20);
constexpr Nanos kPlenty = std::chrono::seconds(20);
constexpr Nanos kShort = std::chrono::milliseconds(600);
constexpr double kRounding = 1e-6;

std::unique_ptr<Collective> formed(Member& member, const Group& group) {
    auto collective = member.backend.form(group, worker(member.index), kForming);
    if (collective.has_error()) throw std::runtime_error(collective.error().text);
    return std::move(*collective);
}

void begin(Collective& collective, const CollectiveKey& key, GradientShare share,
           Nanos deadline = kPlenty) {
    const auto begun = collective.begin(key, std::move(share), clock_now() + deadline);
    if (begun.has_error()) throw std::runtime_error(begun.error().text);
}

// The line of one end: its key, what it is, and whether the mean is right.
std::string judged(const CollectiveEnd& end, const std::vector<double>& weights) {
    std::string line = to_string(end.key) + ": " + text_of(end);
    if (const auto* averaged = std::get_if<Averaged>(&end.result)) {
        const double error = error_of(*averaged, end.key, weights);
        if (!(error < kRounding)) line += ", wrong by " + std::to_string(error);
    }
    return line;
}

std::vector<double> weights_of(std::size_t count) {
    std::vector<double> weights;
    for (std::size_t i = 0; i < count; ++i)
        weights.push_back(1.0 + static_cast<double>(i % 3) * 15);
    return weights;
}

// Averages of several lengths, one after the other.
Lines mean(Member& member) {
    const auto collective = formed(member, whole_group(1, member.count));
    const std::vector<double> weights = weights_of(member.count);
    Lines lines;
    std::uint64_t step = 0;
    for (const std::size_t elements : {1U, 15U, 16U, 1000U, 65537U, 300001U}) {
        const CollectiveKey key = key_of(1, ++step, 0);
        begin(*collective, key, share_of(member.index, key, elements, weights[member.index]));
        for (const auto& end : ends_of(*collective, 1)) lines.push_back(judged(end, weights));
    }
    return lines;
}

// What was brought comes back untouched.
Lines gradient_returns(Member& member) {
    const auto collective = formed(member, whole_group(1, member.count));
    const CollectiveKey key = key_of(1, 1, 0);
    const GradientShare share = share_of(member.index, key, 5000, 1);
    const Payload mine = share.gradient;
    begin(*collective, key, share);
    const auto ends = ends_of(*collective, 1);
    if (ends.size() != 1) return {"no end"};
    const auto brought = gradient_of(member.index, key, 5000);
    const bool same = ends[0].gradient.bytes.data() == mine.bytes.data() &&
                      std::memcmp(mine.bytes.data(), brought.data(), mine.size()) == 0;
    return {same ? "untouched" : "altered"};
}

// From memory of the backend's own, written in place.
Lines own_buffer(Member& member) {
    const auto collective = formed(member, whole_group(1, member.count));
    const std::vector<double> weights(member.count, 1.0);
    Lines lines;
    for (std::uint64_t step = 1; step <= 3; ++step) {
        const CollectiveKey key = key_of(1, step, 7);
        const std::vector<float> gradient = gradient_of(member.index, key, 40'000);
        auto buffer = collective->buffer(gradient.size() * sizeof(float));
        if (buffer.has_error()) return {buffer.error().text};
        std::memcpy(buffer->bytes.data(), gradient.data(), buffer->bytes.size());
        begin(*collective, key, {gradient.size(), 1.0, buffer->payload()});
        for (const auto& end : ends_of(*collective, 1)) lines.push_back(judged(end, weights));
    }
    return lines;
}

// One member is cancelled, then all are.
Lines cancelled(Member& member) {
    const auto collective = formed(member, whole_group(1, member.count));
    std::vector<double> weights(member.count, 2.0);
    weights[1] = 0;
    const CollectiveKey one = key_of(1, 1, 0);
    if (member.index == 1) {
        begin(*collective, one, cancelled_share(3000));
    } else {
        begin(*collective, one, share_of(member.index, one, 3000, 2.0));
    }
    Lines lines;
    for (const auto& end : ends_of(*collective, 1)) lines.push_back(judged(end, weights));
    // Whatever a cancelled member's gradient holds counts for nothing.
    const CollectiveKey spoilt = key_of(1, 2, 0);
    if (member.index == 1) {
        const std::vector<float> nan(3000, std::numeric_limits<float>::quiet_NaN());
        begin(*collective, spoilt, {3000, 0, payload_of_floats(nan)});
    } else {
        begin(*collective, spoilt, share_of(member.index, spoilt, 3000, 2.0));
    }
    for (const auto& end : ends_of(*collective, 1)) lines.push_back(judged(end, weights));
    begin(*collective, key_of(1, 3, 0), cancelled_share(3000));
    for (const auto& end : ends_of(*collective, 1)) lines.push_back(text_of(end));
    return lines;
}

// Twelve buckets at once, each member in an order of its own.
Lines any_order(Member& member) {
    const auto collective = formed(member, whole_group(1, member.count));
    const std::vector<double> weights = weights_of(member.count);
    Lines lines;
    for (std::uint64_t step = 1; step <= 3; ++step) {
        constexpr std::uint32_t kBuckets = 12;
        for (std::uint32_t i = 0; i < kBuckets; ++i) {
            // 5 and 12 have no common factor; the odd members go backwards.
            const std::uint32_t turned =
                (5 * i + static_cast<std::uint32_t>(member.index)) % kBuckets;
            const std::uint32_t bucket = member.index % 2 == 0 ? turned : kBuckets - 1 - turned;
            const CollectiveKey key = key_of(1, step, bucket);
            begin(*collective, key,
                  share_of(member.index, key, 100 + 1000 * bucket, weights[member.index]));
        }
        for (const auto& end : ends_of(*collective, kBuckets)) {
            lines.push_back(judged(end, weights));
        }
    }
    std::sort(lines.begin(), lines.end());
    return lines;
}

// The last member does not come; then it is told.
Lines late(Member& member) {
    const auto collective = formed(member, whole_group(1, member.count));
    const CollectiveKey key = key_of(1, 1, 0);
    Lines lines;
    if (member.index + 1 < member.count) {
        begin(*collective, key, share_of(member.index, key, 1000, 1), kShort);
        begin(*collective, key_of(1, 1, 1), cancelled_share(10));
        for (const auto& end : ends_of(*collective, 2)) lines.push_back(text_of(end));
    } else {
        wait_until_broken(*collective);
        lines = {"kept waiting", "kept waiting"};
    }
    const auto& broken = collective->broken();
    lines.push_back(broken ? text_of(*broken) : "whole");
    const auto begun = collective->begin(key_of(1, 2, 0), cancelled_share(10), clock_now());
    lines.push_back(begun.has_error() ? name_of(begun.error().code) : "begun");
    return lines;
}

// The last member brings another length.
Lines disagree(Member& member) {
    const auto collective = formed(member, whole_group(1, member.count));
    const CollectiveKey key = key_of(1, 1, 0);
    const std::size_t elements = member.index + 1 == member.count ? 999 : 1000;
    begin(*collective, key, share_of(member.index, key, elements, 1));
    Lines lines;
    for (const auto& end : ends_of(*collective, 1)) lines.push_back(text_of(end));
    return lines;
}

// The last member keeps the others waiting; they go on without it, and it cannot come back.
Lines form_again(Member& member) {
    auto collective = formed(member, whole_group(1, member.count));
    const bool is_late = member.index + 1 == member.count;
    const CollectiveKey key = key_of(1, 1, 0);
    Lines lines;
    if (is_late) {
        wait_until_broken(*collective);
        collective.reset();
        auto again =
            member.backend.form(whole_group(1, member.count), worker(member.index), kShort);
        return {again.has_error() ? name_of(again.error().code) : "formed"};
    }
    const GradientShare share = share_of(member.index, key, 2000, 1);
    begin(*collective, key, share, kShort);
    auto ends = ends_of(*collective, 1);
    if (ends.size() != 1) return {"no end"};
    lines.push_back(text_of(ends[0]));
    collective.reset();
    Group rest = whole_group(2, member.count);
    rest.members.pop_back();
    collective = formed(member, rest);
    // What came back broken is brought again.
    begin(*collective, key_of(2, 1, 0), {2000, 1, ends[0].gradient});
    const std::vector<double> weights(member.count - 1, 1.0);
    for (auto end : ends_of(*collective, 1)) {
        end.key = key;  // whose gradient it is
        lines.push_back(judged(end, weights));
    }
    const auto old = collective->begin(key_of(1, 2, 0), cancelled_share(10), clock_now());
    lines.push_back(old.has_error() ? name_of(old.error().code) : "begun");
    return lines;
}

// The middle member dies with a key in flight; the others go on.
Lines death(Member& member) {
    auto collective = formed(member, whole_group(1, member.count));
    const std::vector<double> weights(member.count, 1.0);
    Lines lines;
    const CollectiveKey whole = key_of(1, 1, 0);
    begin(*collective, whole, share_of(member.index, whole, 5000, 1));
    for (const auto& end : ends_of(*collective, 1)) lines.push_back(judged(end, weights));
    const std::size_t dead = member.count / 2;
    if (member.index == dead) {
        begin(*collective, key_of(1, 2, 1), cancelled_share(5000));
        collective->poll(clock_now());
        collective.reset();
        member.die();
        return {"died"};
    }
    const auto begun =
        collective->begin(key_of(1, 2, 0), cancelled_share(5000), clock_now() + kPlenty);
    // It may have seen the death already.
    if (begun.has_error()) lines.push_back(text_of(*collective->broken()));
    for (const auto& end : ends_of(*collective, begun.has_error() ? 0 : 1)) {
        lines.push_back(text_of(end));
    }
    collective.reset();
    Group rest = whole_group(2, member.count);
    rest.members.erase(rest.members.begin() + static_cast<std::ptrdiff_t>(dead));
    collective = formed(member, rest);
    const CollectiveKey after = key_of(2, 2, 0);
    std::vector<double> left = weights;
    left[dead] = 0;
    begin(*collective, after, share_of(member.index, after, 5000, 1));
    for (const auto& end : ends_of(*collective, 1)) lines.push_back(judged(end, left));
    return lines;
}

// Averages without end, for a test that kills somebody; says so when it has begun to, and when the
// group is broken, forms what is left and averages once more.
Lines until_killed(Member& member) {
    auto collective = formed(member, whole_group(1, member.count));
    const std::vector<double> weights(member.count, 1.0);
    std::uint64_t done = 0;
    Lines lines;
    for (std::uint64_t step = 1; lines.empty(); ++step) {
        for (std::uint32_t bucket = 0; bucket < 2; ++bucket) {
            const CollectiveKey key = key_of(1, step, bucket);
            auto begun = collective->begin(key, share_of(member.index, key, 70'000, 1),
                                           clock_now() + std::chrono::seconds(5));
            if (begun.has_error() && lines.empty()) {
                lines.push_back(text_of(*collective->broken()));
            }
        }
        for (const auto& end : ends_of(*collective, lines.empty() ? 2 : 0)) {
            if (std::holds_alternative<Broken>(end.result)) {
                if (lines.empty()) lines.push_back(text_of(end));
            } else if (error_of(std::get<Averaged>(end.result), end.key, weights) > kRounding) {
                lines.push_back("a wrong mean");
            }
        }
        if (++done == 3) member.say("running");
    }
    collective.reset();
    const std::size_t dead = member.count / 2;
    Group rest = whole_group(2, member.count);
    rest.members.erase(rest.members.begin() + static_cast<std::ptrdiff_t>(dead));
    collective = formed(member, rest);
    const CollectiveKey after = key_of(2, 1, 0);
    std::vector<double> left = weights;
    left[dead] = 0;
    begin(*collective, after, share_of(member.index, after, 70'000, 1));
    for (const auto& end : ends_of(*collective, 1)) lines.push_back(judged(end, left));
    return lines;
}

// Many steps with two buckets in flight, whose memory is used again and again.
Lines steady(Member& member) {
    const auto collective = formed(member, whole_group(1, member.count));
    const std::vector<double> weights = weights_of(member.count);
    std::size_t right = 0;
    for (std::uint64_t step = 1; step <= 100; ++step) {
        for (std::uint32_t bucket = 0; bucket < 2; ++bucket) {
            const CollectiveKey key = key_of(1, step, bucket);
            const std::size_t elements = 3000 + 500 * (step % 5);
            begin(*collective, key, share_of(member.index, key, elements, weights[member.index]));
        }
        for (const auto& end : ends_of(*collective, 2)) {
            const auto* averaged = std::get_if<Averaged>(&end.result);
            if (averaged != nullptr && error_of(*averaged, end.key, weights) < kRounding) ++right;
        }
    }
    return {std::to_string(right) + " right"};
}

// What begin() refuses at once.
Lines refusals(Member& member) {
    const auto collective = formed(member, whole_group(1, member.count));
    const Time until = clock_now() + kPlenty;
    Lines lines;
    const auto refused = [&](const CollectiveKey& key, GradientShare share) {
        const auto begun = collective->begin(key, std::move(share), until);
        lines.push_back(begun.has_error() ? name_of(begun.error().code) : "begun");
    };
    GradientShare share = share_of(member.index, key_of(1, 1, 0), 100, 1);
    refused(key_of(2, 1, 0), share);
    share.elements = 101;
    refused(key_of(1, 1, 0), share);
    share.elements = 100;
    share.weight = std::nan("");
    refused(key_of(1, 1, 0), share);
    share.weight = -1;
    refused(key_of(1, 1, 0), share);
    for (std::uint32_t i = 0; i < kMostKeysInFlight; ++i) {
        begin(*collective, key_of(1, 1, i), cancelled_share(1));
    }
    if (member.index == 0) {
        refused(key_of(1, 2, 0), cancelled_share(1));
    } else {
        lines.emplace_back("over_limit");
    }
    for (const auto& end : ends_of(*collective, kMostKeysInFlight)) {
        if (!std::holds_alternative<Weightless>(end.result)) lines.push_back(text_of(end));
    }
    return lines;
}

// The last member goes on to the next group while the others are still busy with one.
Lines comes_early(Member& member) {
    const bool is_last = member.index + 1 == member.count;
    const std::vector<double> weights(member.count, 1.0);
    std::unique_ptr<Collective> collective;
    Lines lines;
    const auto average = [&](std::uint64_t epoch) {
        collective = formed(member, whole_group(epoch, member.count));
        const CollectiveKey key = key_of(epoch, 1, 0);
        begin(*collective, key, share_of(member.index, key, 1000, 1));
        for (const auto& end : ends_of(*collective, 1)) lines.push_back(judged(end, weights));
    };
    if (!is_last) {  // with a group that it never comes to
        const auto never =
            member.backend.form(whole_group(1, member.count), worker(member.index), kShort);
    }
    average(2);
    if (!is_last) {  // with one that it has left
        wait_until_broken(*collective);
        for (int look = 0; look < 10; ++look) {
            collective->wait(std::chrono::milliseconds(10));
            collective->poll(clock_now());
        }
    }
    collective.reset();
    average(3);
    return lines;
}

// The middle member cannot bring its share, and says so.
Lines gives_up(Member& member) {
    const auto collective = formed(member, whole_group(1, member.count));
    const CollectiveKey key = key_of(1, 1, 0);
    const bool gives_up = member.index == member.count / 2;
    if (gives_up) {
        collective->give_up(key, fail(ErrorCode::over_limit, "it has no room"));
        wait_until_broken(*collective);
    } else {
        begin(*collective, key, share_of(member.index, key, 5000, 1));
        const auto ends = ends_of(*collective, 1);  // long before the deadline
        if (ends.size() != 1) return {"waited"};
        if (!std::holds_alternative<Broken>(ends[0].result)) return {text_of(ends[0])};
    }
    if (!collective->broken()) return {"not broken"};
    const std::string& text = collective->broken()->error.text;
    const bool told = !gives_up || text.find("it has no room") != std::string::npos;
    return {text_of(*collective->broken()), told ? "told" : text};
}

}  // namespace

const std::map<std::string, Scenario>& scenarios() {
    static const std::map<std::string, Scenario> all{
        {"mean", mean},
        {"gradient_returns", gradient_returns},
        {"own_buffer", own_buffer},
        {"cancelled", cancelled},
        {"any_order", any_order},
        {"late", late},
        {"disagree", disagree},
        {"form_again", form_again},
        {"death", death},
        {"until_killed", until_killed},
        {"steady", steady},
        {"refusals", refusals},
        {"comes_early", comes_early},
        {"gives_up", gives_up},
    };
    return all;
}

}  // namespace detente::testing
