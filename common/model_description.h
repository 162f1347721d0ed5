// What the framework must know of a model: its tensors, tasks and samples. Made by the model
// library in a short-lived process, then handed to every node as JSON, so that servers and the
// coordinator never load the library.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/ids.h"
#include "common/result.h"

namespace detente {

struct TensorDescription {
    std::string name;                 // the model's own parameter name: "trunk.conv1.weight"
    std::vector<std::int64_t> shape;  // row-major float32
    TaskSet owners;                   // tasks whose loss reaches it; who may update it
    bool frozen = false;              // never computed, pushed or versioned
    std::uint64_t elements() const;
};

// A gate as one task passes it (worker/torch/gates.h).
struct GateDescription {
    std::uint32_t tensor = 0;  // its a: one element, owned by the task alone
    TaskId task;
    std::vector<std::uint32_t> gated;  // tensors whose whole gradient of this task passes the gate
};

struct ModelDescription {
    std::string model;                 // the library's name for it
    std::vector<std::string> tasks;    // index is TaskId
    std::vector<std::string> metrics;  // what each task scores, for people; empty = accuracy
    std::vector<TensorDescription> tensors;
    std::vector<GateDescription> gates;  // none where they are off
    std::uint64_t training_samples = 0;
    std::uint64_t test_samples = 0;
    std::string versions;  // "LibTorch 2.13.0, CPU capability AVX2"
    std::string library;   // checksum of the library's file; empty = built in
};

std::string to_json(const ModelDescription& description);
Result<ModelDescription> model_description_from_json(std::string_view json);

// Glob on a tensor name: `*` any run of characters, `?` one. Case-sensitive, whole name.
bool name_matches(std::string_view pattern, std::string_view name);

}  // namespace detente
