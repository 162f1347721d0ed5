// The setup of a worker whose model has one tensor of four elements, shared by two tasks.
#pragma once

#include <catch2/catch.hpp>
#include <memory>
#include <utility>

#include "worker/worker.h"

namespace detente::test {

inline WorkerSetup one_tensor_setup(std::shared_ptr<const Job> job) {
    ModelDescription model;
    model.model = "one";
    model.tasks = {"a", "b"};
    model.tensors = {{"w", {4}, TaskSet{3}}};
    auto plan = make_plan(model, *job);
    REQUIRE(plan.has_value());
    WorkerSetup setup;
    setup.id = WorkerId{0};
    setup.job = std::move(job);
    setup.plan = std::make_shared<const Plan>(std::move(*plan));
    setup.tasks = model.tasks;
    return setup;
}

}  // namespace detente::test
