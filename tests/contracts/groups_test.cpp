// What every runtime promises of groups that average gradients: formed, averaged in, broken, and
// formed anew. What a collective promises beyond that is asked of it in tests/collectives.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <map>

#include "tests/contracts/runtime_under_test.h"
#include "tests/contracts/scripted_node.h"

namespace detente::testing {
namespace {

constexpr Nanos kDeadline = std::chrono::seconds(60);
constexpr Nanos kPlenty = std::chrono::seconds(20);
constexpr Nanos kShort = std::chrono::milliseconds(200);  // for what never comes
constexpr std::uint64_t kElements = 1000;

Group group_of(std::uint64_t epoch, const std::vector<std::uint32_t>& members) {
    Group group{GroupEpoch{epoch}, {}};
    for (const std::uint32_t member : members) group.members.push_back(WorkerId{member});
    return group;
}
CollectiveKey key_of(std::uint64_t epoch, std::uint32_t bucket) {
    return {GroupEpoch{epoch}, Step{1}, Bucket{bucket}};
}
GradientShare share_of(float value, double weight) {
    const std::vector<float> values(kElements, value);
    return {kElements, weight, copy_of(std::as_bytes(std::span(values)))};
}
std::vector<float> floats_of(const Payload& payload) {
    std::vector<float> values(payload.size() / sizeof(float));
    std::memcpy(values.data(), payload.bytes.data(), payload.size());
    return values;
}
std::string text_of(const Broken& broken) {
    std::string text = std::string("broken: ") + name_of(broken.error.code) + ", missing";
    for (const WorkerId member : broken.missing) text += " " + to_string(node_of(member));
    return text;
}

// A worker that notes what it is told of groups, in words, and does what the test says.
class Member : public Node {
  public:
    using Script = std::function<void(Member&, const Event&, Effects&)>;
    Member(std::uint32_t index, Script script) : index(index), script_(std::move(script)) {}
    void on(Event&& event, Time /*now*/, Effects& effects) override {
        if (const auto* formed = std::get_if<GroupFormed>(&event)) {
            told.push_back("formed " + std::to_string(formed->epoch.value) +
                           (formed->result.has_value()
                                ? ""
                                : std::string(": ") + name_of(formed->result.error().code)));
            if (formed->result.has_error()) why = formed->result.error().text;
        } else if (const auto* reduced = std::get_if<Reduced>(&event)) {
            note(reduced->end);
        } else if (const auto* broke = std::get_if<GroupBroken>(&event)) {
            told.push_back("group " + std::to_string(broke->epoch.value) + " " +
                           text_of(broke->broken));
        }
        script_(*this, event, effects);
    }
    void reduce(Effects& effects, const CollectiveKey& key, GradientShare share, Nanos deadline) {
        brought[key] = share.gradient;
        effects.reduce(key, std::move(share), deadline);
    }

    const std::uint32_t index;
    std::vector<std::string> told;
    std::string why;  // of a group that was not formed
    std::map<CollectiveKey, Payload> brought;
    std::map<CollectiveKey, std::vector<float>> means;
    bool came_back = true;  // every gradient, as it was brought

  private:
    void note(const CollectiveEnd& end) {
        std::string what = "weightless";
        if (const auto* averaged = std::get_if<Averaged>(&end.result)) {
            what = "averaged, weight " + std::to_string(std::lround(averaged->weight_sum));
            means[end.key] = floats_of(averaged->mean);
        } else if (const auto* broken = std::get_if<Broken>(&end.result)) {
            what = text_of(*broken);
        }
        told.push_back(to_string(end.key) + ": " + what);
        came_back = came_back && end.gradient.bytes.data() == brought[end.key].bytes.data() &&
                    end.gradient.size() == brought[end.key].size();
    }
    Script script_;
};

// So many workers with one script.
class Members {
  public:
    Members(RuntimeUnderTest& runtime, std::uint32_t count, const Member::Script& script) {
        for (std::uint32_t index = 0; index < count; ++index) {
            all_.push_back(std::make_unique<Member>(index, script));
            runtime.spawn(node_of(WorkerId{index}), *all_.back(), nullptr);
        }
    }
    const Member& operator[](std::size_t index) const { return *all_[index]; }

  private:
    std::vector<std::unique_ptr<Member>> all_;
};

bool is_formed(const Event& event, std::uint64_t epoch) {
    const auto* formed = std::get_if<GroupFormed>(&event);
    return formed != nullptr && formed->epoch == GroupEpoch{epoch} && formed->result.has_value();
}

}  // namespace

TEST_CASE("runtime: a group forms once at each member, and each key ends there with one mean") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    const Members members(*runtime, 3, [](Member& self, const Event& event, Effects& effects) {
        if (std::holds_alternative<Started>(event)) effects.form(group_of(1, {0, 1, 2}), kPlenty);
        if (is_formed(event, 1)) {
            // Weights 1, 2, 3; of the second bucket only member 1's counts; of the third nobody's.
            // One of them joins the keys in another order.
            for (std::uint32_t i = 0; i < 3; ++i) {
                const std::uint32_t bucket = self.index == 1 ? 2 - i : i;
                GradientShare share = share_of(static_cast<float>(self.index), self.index + 1.0);
                if (bucket == 2 || (bucket == 1 && self.index != 1)) {
                    share = cancelled_share(kElements);
                }
                self.reduce(effects, key_of(1, bucket), std::move(share), kPlenty);
            }
        }
        if (self.told.size() == 4) effects.finish({});
    });
    REQUIRE(runtime->run(kDeadline));
    for (std::size_t i = 0; i < 3; ++i) {
        CAPTURE(i);
        std::vector<std::string> told = members[i].told;
        REQUIRE(told.size() >= 4);  // one that has ended before breaks the group, after its keys
        CHECK(told[0] == "formed 1");
        std::sort(told.begin() + 1, told.begin() + 4);
        CHECK(told[1] == "epoch 1, step 1, bucket 0: averaged, weight 6");
        CHECK(told[2] == "epoch 1, step 1, bucket 1: averaged, weight 2");
        CHECK(told[3] == "epoch 1, step 1, bucket 2: weightless");
        CHECK(members[i].came_back);
        CHECK(members[i].means == members[0].means);
    }
    const auto mean_of = [&](std::uint32_t bucket) {
        return members[0].means.at(key_of(1, bucket));
    };
    CHECK(mean_of(1) == std::vector<float>(kElements, 1.0F));
    REQUIRE(mean_of(0).size() == kElements);
    CHECK(mean_of(0)[0] == Approx((0 * 1 + 1 * 2 + 2 * 3) / 6.0));
    CHECK(mean_of(0) == std::vector<float>(kElements, mean_of(0)[0]));
}

TEST_CASE("runtime: who misses a key breaks the group for all, and the others form anew") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    const Members members(*runtime, 3, [](Member& self, const Event& event, Effects& effects) {
        const bool late = self.index == 2;
        if (std::holds_alternative<Started>(event)) effects.form(group_of(1, {0, 1, 2}), kPlenty);
        if (is_formed(event, 1) && !late) {
            self.reduce(effects, key_of(1, 0), share_of(1, 1), kShort);
        }
        if (std::holds_alternative<GroupBroken>(event)) {
            if (late) {
                self.reduce(effects, key_of(1, 0), share_of(1, 1), kPlenty);
            } else {
                effects.form(group_of(2, {0, 1}), kPlenty);
            }
        }
        if (is_formed(event, 2)) self.reduce(effects, key_of(2, 0), share_of(1, 1), kPlenty);
        const auto* reduced = std::get_if<Reduced>(&event);
        const std::uint64_t last = late ? 1 : 2;
        if (reduced != nullptr && reduced->end.key.epoch == GroupEpoch{last}) effects.finish({});
    });
    REQUIRE(runtime->run(kDeadline));
    const std::string broken = "broken: timed_out, missing worker:2";
    const std::string key = "epoch 1, step 1, bucket 0: ";
    for (const std::size_t i : {0U, 1U}) {
        CAPTURE(i);
        CHECK(members[i].told ==
              std::vector<std::string>{"formed 1", key + broken, "group 1 " + broken, "formed 2",
                                       "epoch 2, step 1, bucket 0: averaged, weight 2"});
        CHECK(members[i].came_back);
    }
    // Told though it had nothing in flight; and what it brings to the broken group comes back.
    CHECK(members[2].told ==
          std::vector<std::string>{"formed 1", "group 1 " + broken, key + broken});
    CHECK(members[2].came_back);
}

TEST_CASE("runtime: a member that ends breaks its group, and the others are told who it was") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    const Members members(*runtime, 3, [](Member& self, const Event& event, Effects& effects) {
        const bool ends = self.index == 1;
        if (std::holds_alternative<Started>(event)) effects.form(group_of(1, {0, 1, 2}), kPlenty);
        if (is_formed(event, 1)) {
            if (ends) return effects.finish({});
            self.reduce(effects, key_of(1, 0), share_of(1, 1), kPlenty);
        }
        if (self.told.size() == 3) effects.finish({});
    });
    REQUIRE(runtime->run(kDeadline));
    CHECK(members[1].told == std::vector<std::string>{"formed 1"});
    for (const std::size_t i : {0U, 2U}) {
        CAPTURE(i);
        std::vector<std::string> told = members[i].told;
        REQUIRE(told.size() == 3);
        // A member that heard of it first brings its gradient to a group that is broken.
        std::sort(told.begin(), told.end());
        CHECK(told == std::vector<std::string>{
                          "epoch 1, step 1, bucket 0: broken: peer_lost, missing worker:1",
                          "formed 1", "group 1 broken: peer_lost, missing worker:1"});
        CHECK(members[i].came_back);
    }
}

TEST_CASE("runtime: a group that a member does not come to is not formed, and says who") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    const Members members(*runtime, 3, [](Member& self, const Event& event, Effects& effects) {
        if (self.index == 1 || std::holds_alternative<GroupFormed>(event)) {
            effects.finish({});
        } else if (std::holds_alternative<Started>(event)) {
            effects.form(group_of(1, {0, 1, 2}), kShort);
        }
    });
    REQUIRE(runtime->run(kDeadline));
    for (const std::size_t i : {0U, 2U}) {
        CAPTURE(i, members[i].why);
        CHECK(members[i].told == std::vector<std::string>{"formed 1: timed_out"});
        CHECK_THAT(members[i].why, Catch::Contains("worker:1"));
    }
}

TEST_CASE("runtime: what is brought to no group ends broken once, and comes back") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    const Members members(*runtime, 1, [](Member& self, const Event& event, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            self.reduce(effects, key_of(1, 0), share_of(1, 1), kPlenty);
        } else if (std::holds_alternative<Reduced>(event)) {
            // A little longer, to see that nothing comes twice.
            effects.after(std::chrono::milliseconds(5), {});
        } else if (std::holds_alternative<TimerFired>(event)) {
            effects.finish({});
        }
    });
    REQUIRE(runtime->run(kDeadline));
    REQUIRE(members[0].told.size() == 1);
    CHECK_THAT(members[0].told[0],
               Catch::StartsWith("epoch 1, step 1, bucket 0: broken: peer_lost"));
    CHECK(members[0].came_back);
}

}  // namespace detente::testing
