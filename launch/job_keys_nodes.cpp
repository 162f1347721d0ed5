// The keys of nodes and of what their workers keep in step: [launch] and [sync].
#include "launch/job_keys.h"

namespace detente {

std::vector<Table> node_tables() {
    return {
        {"launch",
         false,
         "Which workers make a node.",
         {{"nodes",
           "nodes",
           "0: the workers of a host are a node. Otherwise the workers are dealt out to so many "
           "virtual nodes, neighbours together, for tests and studies on one machine; workers of "
           "different hosts are never of one node.",
           [](Job& job, std::size_t) -> Slot { return &job.nodes; },
           {0, 65536}}}},
        {"sync",
         false,
         "Layers that the workers of a node keep in step: their gradients are averaged over the "
         "node, task by task, before conflicts are resolved, and pushed once per node; the rest "
         "stays asynchronous.",
         {{"layers",
           "name patterns",
           "Tensors in step; none: everything is asynchronous; \"auto\": the layers of the run "
           "`measured` whose cosines were the most negative, up to half of what is shared "
           "(`detente plan --sync RUN` shows them).",
           [](Job& job, std::size_t) -> Slot { return &job.sync_layers; },
           {},
           {},
           false,
           "auto"},
          {"measured", "", "For layers = \"auto\": a run's directory (from this file's folder).",
           [](Job& job, std::size_t) -> Slot { return &job.sync_measured; }},
          {"every",
           "gradients",
           "Of a worker from one average to the next; those between push as if there were no "
           "[sync].",
           [](Job& job, std::size_t) -> Slot { return &job.sync_every; },
           {1, 1e6}},
          {"backend",
           "",
           "auto: shared memory; nccl: device memory, where there are GPUs; mpi: where mpirun "
           "started the job.",
           [](Job& job, std::size_t) -> Slot {
               return ChoiceSlot{[&job] { return static_cast<std::size_t>(job.sync_backend); },
                                 [&job](std::size_t chosen) {
                                     job.sync_backend = static_cast<SyncBackend>(chosen);
                                 }};
           },
           {},
           {"auto", "shared_memory", "nccl", "mpi"}},
          {"nccl_library", "",
           "For backend nccl: NCCL's library, as the system's loader finds it (a name or a whole "
           "path); empty: libnccl.so.2.",
           [](Job& job, std::size_t) -> Slot { return &job.sync_nccl_library; }},
          {"cuda_library", "",
           "Likewise CUDA's runtime; empty: libcudart.so of the version this was built with.",
           [](Job& job, std::size_t) -> Slot { return &job.sync_cuda_library; }},
          {"deadline_s",
           "s",
           "What a member waits for the others at each average: for the slowest one's gradients up "
           "to it (`every` of them), and for the push of the one who pushes to be judged; then the "
           "node goes on without who is missing.",
           [](Job& job, std::size_t) -> Slot { return &job.sync_deadline; },
           {0.001, 1e6}}}}};
}

}  // namespace detente
