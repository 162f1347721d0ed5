#include "ps/block_store.h"

#include <catch2/catch.hpp>

#include "tests/ps/one_shard.h"

namespace detente {
namespace {

using test::kTrunk;

struct Store {
    explicit Store(const Job& job, std::uint64_t trunk_elements = 40)
        : plan(*make_plan(test::model_of(trunk_elements), job)),
          store(*BlockStore::create(plan, job, kLeadShard, Epoch{3})) {}
    LiveBlock& trunk() { return *store.find(kTrunk); }
    BlockContents contents(float weight) const {
        BlockContents contents;
        contents.weights = test::floats(plan.block(kTrunk).elements, weight);
        return contents;
    }
    Plan plan;
    BlockStore store;
};

Job adam_job() {
    Job job = test::job_of();
    job.rule.name = "adam";
    return job;
}

}  // namespace

TEST_CASE("the checksum of a block is that of its weights, before and after updates and refills") {
    Store store(test::job_of());
    const Payload gradient = test::floats(40, 1);
    const auto is_true = [&] {
        return store.trunk().weight_checksum() == checksum_of(store.trunk().weight_payload().bytes);
    };
    REQUIRE(store.store.fill(store.trunk(), store.contents(2)).has_value());
    const std::uint64_t first = store.trunk().weight_checksum();
    CHECK(is_true());
    store.store.apply(store.trunk(), gradient.bytes.data(), 1, 64);  // in place
    CHECK(store.trunk().weight_checksum() != first);
    CHECK(is_true());
    const Payload held = store.trunk().weight_payload();
    store.store.apply(store.trunk(), gradient.bytes.data(), 1, 64);  // into a spare
    CHECK(is_true());
    REQUIRE(store.store.fill(store.trunk(), store.contents(2)).has_value());
    CHECK(store.trunk().weight_checksum() == first);
}

TEST_CASE("a restored block goes on where the checkpoint left it, optimizer state included") {
    Store store(adam_job());
    BlockContents contents = store.contents(2);
    contents.version = Version{17};
    contents.updates = 9;
    contents.samples_applied = 576;
    contents.slots = {test::floats(40, 0.5F), test::floats(40, 0.25F)};
    REQUIRE(store.store.fill(store.trunk(), contents).has_value());
    CHECK(store.trunk().epoch == Epoch{3});
    CHECK(store.trunk().version == Version{17});
    const auto slots = store.trunk().slots->floats();
    CHECK(slots[39] == 0.5F);
    CHECK(slots[store.trunk().slot_floats()] == 0.25F);
    const Payload gradient = test::floats(40, 1);
    store.store.apply(store.trunk(), gradient.bytes.data(), 1, 64);
    CHECK(store.trunk().version == Version{18});
    CHECK(store.trunk().updates == 10);
    CHECK(store.trunk().samples_applied == 640);
    CHECK(slots[0] == Approx(0.9 * 0.5 + 0.1));
}

TEST_CASE("contents that do not fit the block or the rule are refused") {
    Store store(adam_job());
    BlockContents contents = store.contents(1);
    ErrorCode expected = ErrorCode::bad_length;
    SECTION("weights of another length") { contents.weights = test::floats(41, 1); }
    SECTION("optimizer state of another length") {
        contents.slots = {test::floats(40, 0), test::floats(39, 0)};
    }
    SECTION("optimizer state of another rule") {
        contents.slots = {test::floats(40, 0)};
        expected = ErrorCode::bad_checkpoint;
    }
    const auto filled = store.store.fill(store.trunk(), contents);
    REQUIRE_FALSE(filled.has_value());
    CHECK(filled.error().code == expected);
    CHECK(store.trunk().weights == nullptr);
    CHECK_FALSE(store.store.initialised());
}

TEST_CASE("a block so large that two do not fit the spares can still be updated while shared") {
    Job job = test::job_of();
    job.block_bytes = 64U << 20U;
    Store store(job, 6U << 20U);  // 24 MiB: two are more than kSpareBytes
    REQUIRE(store.store.fill(store.trunk(), store.contents(1)).has_value());
    const Payload gradient = test::floats(6U << 20U, 1);
    std::vector<Payload> held;
    for (int i = 0; i < 2; ++i) {
        held.push_back(store.trunk().weight_payload());
        REQUIRE(store.store.can_apply({&store.trunk()}));
        store.store.apply(store.trunk(), gradient.bytes.data(), 1, 64);
    }
    held.push_back(store.trunk().weight_payload());
    CHECK_FALSE(store.store.can_apply({&store.trunk()}));
    held.clear();
    CHECK(store.store.can_apply({&store.trunk()}));
    CHECK(store.store.lent() == 0);
}

TEST_CASE("a worker that goes before there are weights is forgotten, under any policy") {
    for (const char* policy : {"async", "dc_asgd", "dana_zero"}) {
        INFO(policy);
        Job job = test::job_of();
        job.policy = {policy, {}};
        Store store(job);
        CHECK_FALSE(store.store.forget(WorkerId{1}));
    }
}

TEST_CASE("an unknown rule or policy is refused when the store is made") {
    Job job = test::job_of();
    const auto plan = make_plan(test::model_of(40), job);
    REQUIRE(plan.has_value());
    SECTION("policy") { job.policy.name = "no_such"; }
    SECTION("rule") { job.rule.name = "no_such"; }
    const auto store = BlockStore::create(*plan, job, kLeadShard, Epoch{1});
    REQUIRE_FALSE(store.has_value());
    CHECK(store.error().code == ErrorCode::bad_job);
}

}  // namespace detente
