// A coordinator in a test's hands, and peers that do what they are told.
#pragma once

#include <catch2/catch.hpp>
#include <functional>
#include <utility>
#include <vector>

#include "common/build_id.h"
#include "launch/coordinator.h"
#include "tests/recorded_effects.h"

namespace detente::test {

inline Job small_job() {
    Job job;
    job.name = "small";
    job.servers = 2;
    job.workers = 2;
    return job;
}

struct Scene {
    explicit Scene(const Job& job = small_job(), std::uint64_t samples_before = 0)
        : Scene(options(job, samples_before)) {}
    explicit Scene(const CoordinatorOptions& options)
        : job_(options.job), node(options), world(node) {
        world.give(Started{});
    }
    static CoordinatorOptions options(const Job& job, std::uint64_t samples_before) {
        CoordinatorOptions options;
        options.samples_before = samples_before;
        options.job = job;
        options.job_text = "name = \"small\"";
        options.model_json = "{}";
        options.tasks = {"a", "b"};
        options.training_samples = 1000;
        options.checkpoint_dir = "/run/checkpoints";
        options.host = "here";
        return options;
    }
    static NodeId shard(std::uint32_t i) { return node_of(ShardId{i}); }
    static NodeId worker(std::uint32_t i) { return node_of(WorkerId{i}); }

    void hello(NodeId from, bool has_weights = false) {
        Hello hello;
        hello.endpoint = {.node = from, .tcp = "tcp://127.0.0.1:1", .host = "here"};
        hello.process = 100 + from.index;
        hello.build = build_description();
        hello.has_weights = has_weights;
        world.receive(from, hello);
    }
    void all(const std::function<void(NodeId)>& action) {
        for (std::uint32_t i = 0; i < job_.shards(); ++i) action(shard(i));
        for (std::uint32_t i = 0; i < job_.workers; ++i) action(worker(i));
    }
    void train() {
        all([&](NodeId id) { hello(id); });
        all([&](NodeId id) { world.receive(id, Ready{}); });
        REQUIRE(node.view().stage == Stage::training);
    }
    void heartbeat(NodeId from, std::vector<NamedValue> values = {}) {
        Status status;
        status.activity = "computing step 7";
        status.values = std::move(values);
        world.receive(from, status);
    }
    void stop_workers() {
        for (std::uint32_t i = 0; i < job_.workers; ++i) {
            if (node.view().find(worker(i))->live()) world.receive(worker(i), Stopped{});
        }
    }
    void answer_checkpoint() {
        const auto requests = world.of<CheckpointRequest>();
        REQUIRE(!requests.empty());
        const CheckpointRequest last = requests.back().second;
        for (std::uint32_t i = 0; i < job_.shards(); ++i) {
            world.receive(shard(i), CheckpointReply{.number = last.number});
        }
        REQUIRE(world.of<CheckpointRequest>().back().first == kMerger);
        world.receive(kMerger, CheckpointReply{.number = last.number});
    }
    void evaluated(double a, double b) {
        Stopped scores;
        scores.last.values = {{"accuracy.a", a}, {"accuracy.b", b}};
        world.receive(kEvaluator, scores);
    }
    void stop_shards() {
        for (std::uint32_t i = 0; i < job_.shards(); ++i) {
            Stopped stopped;
            stopped.last.values = {{"updates.computed", 10}, {"updates.applied", 10}};
            world.receive(shard(i), stopped);
        }
    }

    Job job_;
    Coordinator node;
    RecordedEffects world;
};

}  // namespace detente::test
