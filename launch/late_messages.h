// The last messages that shards and workers sent before their run went down, kept to be heard again
// in the run that follows it: as of processes that should be gone.
//
// Thread: the world's.
#pragma once

#include <cstddef>
#include <deque>
#include <vector>

#include "common/messages.h"

namespace detente {

class LateMessages {
  public:
    static constexpr std::size_t kMost = 48;

    // Keeps a copy of its own, blocks and all: whoever lent those gets them back. Messages from and
    // to the coordinator are not kept: their connections end with it.
    void note(const Message& message);
    // What was kept, oldest first; nothing is afterwards.
    std::vector<Message> take();

  private:
    std::deque<Message> kept_;
};

}  // namespace detente
