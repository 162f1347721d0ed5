// What averages gradients inside a node, as [sync] backend says, and the thread it runs on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/config.h"
#include "common/partition/plan.h"
#include "common/runtime/zmq/loop.h"
#include "launch/environment.h"
#include "launch/exit_code.h"
#include "worker/collectives/collective_module.h"
#include "worker/collectives/collective_thread.h"
#include "worker/collectives/shared_memory.h"

namespace detente {

// Where a worker averages.
struct CollectivePlace {
    // Tells apart what runs on this host at once; the same at all members.
    std::string run;
    std::size_t tasks = 0;
    std::string device = "cpu";  // that it computes on, as device_of() says
    std::uint32_t local = 0;     // which of its host's workers it is, as device_of() takes it
};

// What shared memory has room for, at every member alike: a function of the job and its plan.
SharedMemoryOptions shared_memory_for(const Job& job, const Plan& plan,
                                      const CollectivePlace& place);

// What the module over NCCL is told: the libraries the job names, and this worker's GPU.
CollectiveOptions nccl_options(const Job& job, const CollectivePlace& place);

// not_supported: no such module, or what it needs is not on this machine, or more tasks than can be
// averaged; the text says what was looked for.
Result<std::unique_ptr<CollectiveBackend>> make_collectives(const Job& job, const Plan& plan,
                                                            const CollectivePlace& place,
                                                            const Variables& variables);

// Where mpirun started the job: MPI has to be begun by every rank, those that average nothing too,
// or none gets beyond its beginning. Does nothing for other backends; a worker's make_collectives()
// then takes what was begun.
Result<void> join_collectives(const Job& job, const Variables& variables);
// At the process's end. After a failure it ends the process itself, where MPI was begun: MPI's own
// end would wait for ranks that are gone.
void leave_collectives(ExitCode code);

// A worker's: what comes of it goes to its loop. Thread: the loop's; outlives the loop's run().
class NodeReducer final : public Reducer {
  public:
    NodeReducer(std::unique_ptr<CollectiveBackend> backend, WorkerId self, ZmqLoop& loop);
    void form(Group group, Nanos deadline) override { thread_.form(std::move(group), deadline); }
    void reduce(const CollectiveKey& key, GradientShare share, Nanos deadline) override {
        thread_.begin(key, std::move(share), deadline);
    }
    void stop() override { thread_.stop(); }

  private:
    std::unique_ptr<CollectiveBackend> backend_;
    CollectiveThread thread_;
};

}  // namespace detente
