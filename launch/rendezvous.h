// The file through which the ranks of one launch find rank 0, held by rank 0 while it lives: a lock
// that the kernel gives back with the process, so a killed run leaves a file but no holder.
//
// Thread: owned by one; opening and closing are the only effects.
#pragma once

#include <string>

#include "common/result.h"

namespace detente {

class Rendezvous {
  public:
    // Takes the file and empties it, making its folder where that is missing. io, naming the file
    // and what to do: another live rank 0 holds it, or it cannot be written.
    static Result<Rendezvous> hold(const std::string& file);
    // Removes the file.
    ~Rendezvous();
    Rendezvous(Rendezvous&& other) noexcept;
    Rendezvous& operator=(Rendezvous&&) = delete;

    // The address where rank 0 listens, for whoever reads the file.
    Result<void> announce(const std::string& address);

  private:
    Rendezvous(std::string file, int descriptor) : file_(std::move(file)), held_(descriptor) {}

    std::string file_;
    int held_ = -1;
};

}  // namespace detente
