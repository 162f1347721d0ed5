// What an engine finds out about a model before it computes with it: which task's loss reaches
// which tensor, and whether the model is one that can be trained task by task at all.
//
// Thread: the engine's compute thread, at construction (check_losses: at each computation).
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>
#include <vector>

#include "worker/torch/model.h"

namespace detente {

struct ProbedTensor {
    std::string name;
    torch::Tensor value;  // the model's own, contiguous float32 on the CPU
    TaskSet owners;
    bool frozen = false;
};

// The model's parameters in its own order, those that match a frozen pattern without gradient; a
// tensor registered under two names appears once, under the first. bad_model: a module with
// buffers (their contents would differ between workers until buffers are blocks), a parameter that
// is not float32 on the CPU, a frozen pattern that matches nothing.
Result<std::vector<ProbedTensor>> probe_tensors(const std::string& model, Model& module,
                                                const std::vector<std::string>& frozen);

// bad_model unless `losses` is one scalar per task, each with a graph of its own: the cheap part of
// refusing tasks that were summed before the backward.
std::optional<Error> check_losses(const std::string& model, const std::vector<Task>& tasks,
                                  const std::vector<torch::Tensor>& losses);

// Runs one small batch forward and each task backward; fills owners. bad_model: a tensor no loss
// reaches; sparse gradients; tasks summed before the backward, which is proven by the graph: a
// loss that contains another task's loss, or two losses made from one scalar whose gradients are
// the same up to a factor.
std::optional<Error> probe_owners(const std::string& model, const std::vector<Task>& tasks,
                                  const std::vector<torch::Tensor>& losses,
                                  std::vector<ProbedTensor>& tensors);

}  // namespace detente
