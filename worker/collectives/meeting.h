// How the processes of a group on one host meet: the first member makes the memory all will share
// and hands it to the others over a socket, with a wake-up descriptor per member.
//
// Nothing of it has a name in a file system: the memory is a memfd, the socket's name is abstract.
// So nothing is left over, whoever is killed and whenever, no /dev/shm has to be large enough, and
// hosts that are network namespaces stay apart as hosts do. The sockets stay open: one that hangs
// up is a member that is gone, however it went.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "worker/collectives/collective.h"

namespace detente {

// A file descriptor, closed with it.
class Descriptor {
  public:
    explicit Descriptor(int number = -1) : number_(number) {}
    ~Descriptor();
    Descriptor(Descriptor&& other) noexcept : number_(other.number_) { other.number_ = -1; }
    Descriptor& operator=(Descriptor&& other) noexcept;
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const { return number_; }
    bool is_open() const { return number_ >= 0; }

  private:
    int number_ = -1;
};

struct Meeting {
    Descriptor memory;
    std::size_t memory_bytes = 0;
    std::vector<Descriptor> wakeups;  // an eventfd per member, in the group's order
    // To the others at the first member, to the first at the others; closed ones elsewhere.
    std::vector<Descriptor> peers;
};

// Blocks until every member is there. `run` tells apart what runs on this host at once; members of
// other users are turned away. Errors: timed_out (names who is missing), wrong_epoch (a member that
// asks for other members or another size under this name), io (the system's reason).
Result<Meeting> meet(const std::string& run, const Group& group, WorkerId self,
                     std::size_t memory_bytes, Nanos deadline);

}  // namespace detente
