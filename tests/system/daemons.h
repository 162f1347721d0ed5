// Daemons of the tests' own: an sshd and a Slurm on this machine, each with its configuration, keys
// and sockets in a temporary folder and on ports of its own; ended with the object. Where a program
// is not installed, `missing()` says which, and a test is skipped with that line.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/system/launched.h"

namespace detente::test {

// Empty, or "sshd is not installed (Debian: openssh-server)" of the first that is not there. Looked
// up on PATH and in /usr/sbin.
std::string missing(const std::vector<std::pair<std::string, std::string>>& program_and_package);
std::uint16_t free_port();

// What starts ranks as a user's own mpirun does; `bare`: what it is given before their program.
struct Mpi {
    std::string program;
    std::string package;  // Debian's
    std::vector<std::string> bare;
    bool open_mpi() const { return package == "openmpi-bin"; }
};
const std::vector<Mpi>& all_mpis();
// Says so with what is missing. Open MPI is allowed to run as root from here on.
bool skipped(const Mpi& mpi);

// One machine that answers to the hosts one, two and three; nobody answers at `nowhere`.
class SshHosts {
  public:
    static std::string missing_programs();
    SshHosts();
    // What scripts/launch --ssh is given.
    std::string client() const { return "ssh -F " + folder_ / "client"; }
    bool answers() const;

  private:
    TemporaryFolder folder_;
    std::unique_ptr<Launched> daemon_;
};

// One node of this machine's name. Its commands find it by SLURM_CONF, which is set here.
class SlurmNode {
  public:
    static std::string missing_programs();
    SlurmNode();
    ~SlurmNode();
    SlurmNode(const SlurmNode&) = delete;
    SlurmNode& operator=(const SlurmNode&) = delete;
    bool answers() const;
    std::string log() const;

  private:
    TemporaryFolder folder_;
    // A folder for what each says.
    TemporaryFolder munge_;
    TemporaryFolder controller_;
    TemporaryFolder node_;
    std::vector<std::unique_ptr<Launched>> daemons_;
};

}  // namespace detente::test
