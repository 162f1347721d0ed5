#include "tests/system/daemons.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <random>

#include "launch/child_process.h"
#include "launch/roles.h"

namespace detente::test {

namespace fs = std::filesystem;
using std::chrono::seconds;

namespace {

std::string found(const std::string& program) {
    std::string path = std::getenv("PATH") != nullptr ? std::getenv("PATH") : "";
    path += ":/usr/sbin:/sbin";
    for (std::size_t from = 0; from < path.size();) {
        const std::size_t end = std::min(path.find(':', from), path.size());
        const std::string file = path.substr(from, end - from) + "/" + program;
        if (::access(file.c_str(), X_OK) == 0) return file;
        from = end + 1;
    }
    return "";
}

bool succeeds(const std::vector<std::string>& words) {
    const auto child = run_child(words, "", seconds(10));
    return child.has_value() && child->exit_code == 0 && child->signal == 0;
}

std::string short_host() {
    const std::string host = this_host();
    return host.substr(0, host.find('.'));
}

}  // namespace

std::string missing(const std::vector<std::pair<std::string, std::string>>& program_and_package) {
    for (const auto& [program, package] : program_and_package) {
        if (found(program).empty()) {
            return program + " is not installed (Debian: " + package + ")";
        }
    }
    return "";
}

const std::vector<Mpi>& all_mpis() {
    static const std::vector<Mpi> all = {
        {"mpirun.openmpi", "openmpi-bin", {"--oversubscribe", "-n", "5"}},
        {"mpirun.mpich", "mpich", {"-n", "5"}},
    };
    return all;
}

bool skipped(const Mpi& mpi) {
    ::setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    ::setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    const std::string lacks = missing({{mpi.program, mpi.package}});
    if (!lacks.empty()) WARN("skipped: " << lacks);
    return !lacks.empty();
}

std::uint16_t free_port() {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(any);
    ::bind(socket, reinterpret_cast<sockaddr*>(&any), sizeof(any));
    ::getsockname(socket, reinterpret_cast<sockaddr*>(&any), &length);
    ::close(socket);
    return ntohs(any.sin_port);
}

// ---- ssh ----

std::string SshHosts::missing_programs() {
    return missing({{"sshd", "openssh-server"},
                    {"ssh", "openssh-client"},
                    {"ssh-keygen", "openssh-client"},
                    {"python3", "python3"}});
}

SshHosts::SshHosts() {
    for (const std::string key : {"host_key", "key"}) {
        succeeds({"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder_ / key});
    }
    fs::copy_file(folder_ / "key.pub", folder_ / "authorized");
    // Where it gives up its rights, which it looks for as root.
    if (::geteuid() == 0) ::mkdir("/run/sshd", 0755);
    const std::string port = std::to_string(free_port());
    write_file(folder_ / "server",
               "Port " + port + "\nListenAddress 127.0.0.1\nHostKey " + folder_ / "host_key" +
                   "\nAuthorizedKeysFile " + folder_ / "authorized" +
                   "\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
                   "MaxStartups 100\n");
    const std::string common = "  BatchMode yes\n  IdentitiesOnly yes\n  IdentityFile " +
                               folder_ / "key" +
                               "\n  UserKnownHostsFile /dev/null\n  StrictHostKeyChecking no\n"
                               "  LogLevel ERROR\n  HostName 127.0.0.1\n";
    write_file(folder_ / "client", "Host one two three\n  Port " + port + "\n" + common +
                                       "Host nowhere\n  Port 1\n" + common);
    // sshd wants to be called by its whole path.
    daemon_ = std::make_unique<Launched>(
        folder_, std::vector<std::string>{"-D", "-e", "-f", folder_ / "server"}, found("sshd"));
}

bool SshHosts::answers() const {
    return eventually(seconds(20), [this] {
        return succeeds({"ssh", "-F", folder_ / "client", "one", "true"});
    });
}

// ---- Slurm ----

std::string SlurmNode::missing_programs() {
    const std::string program = missing({{"slurmctld", "slurmctld"},
                                         {"slurmd", "slurmd"},
                                         {"srun", "slurm-client"},
                                         {"munged", "munge"}});
    if (program.empty() && ::geteuid() != 0) return "slurmd starts as root only";
    return program;
}

SlurmNode::SlurmNode() {
    std::random_device random;
    std::string key;
    for (int i = 0; i < 256; ++i) key += static_cast<char>('a' + random() % 26);
    write_file(folder_ / "munge.key", key);
    ::chmod((folder_ / "munge.key").c_str(), 0600);
    for (const std::string name : {"state", "spool"}) fs::create_directory(folder_ / name);
    const std::string host = short_host();
    const std::string socket = folder_ / "munge.socket";
    write_file(
        folder_ / "slurm.conf",
        "ClusterName=tests\nSlurmctldHost=" + host +
            "(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge\nCredType=cred/munge"
            "\nAuthInfo=socket=" +
            socket +
            "\nMpiDefault=none\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n"
            "SelectType=select/cons_tres\nSwitchType=switch/none\nReturnToService=2\nKillWait=5\n"
            "SlurmctldPort=" +
            std::to_string(free_port()) + "\nSlurmdPort=" + std::to_string(free_port()) +
            "\nSlurmctldPidFile=" + folder_ / "slurmctld.pid" + "\nSlurmdPidFile=" +
            folder_ / "slurmd.pid" + "\nStateSaveLocation=" + folder_ / "state" +
            "\nSlurmdSpoolDir=" + folder_ / "spool" + "\nNodeName=" + host +
            " NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN\nPartitionName=tests Nodes=" + host +
            " Default=YES State=UP OverSubscribe=FORCE:8\n");
    ::setenv("SLURM_CONF", (folder_ / "slurm.conf").c_str(), 1);
    const auto start = [this](const TemporaryFolder& output, const std::string& program,
                              const std::vector<std::string>& arguments) {
        daemons_.push_back(std::make_unique<Launched>(output, arguments, found(program)));
    };
    start(munge_, "munged",
          {"--foreground", "--force", "--key-file=" + folder_ / "munge.key", "--socket=" + socket,
           "--pid-file=" + folder_ / "munge.pid", "--log-file=" + folder_ / "munge.log",
           "--seed-file=" + folder_ / "munge.seed"});
    eventually(seconds(10), [&] { return fs::exists(socket); });
    start(controller_, "slurmctld", {"-D", "-c"});
    start(node_, "slurmd", {"-D", "-c"});
}

SlurmNode::~SlurmNode() {
    // The last started first, in order: slurmd ends its step daemons, which nobody else would.
    while (!daemons_.empty()) {
        daemons_.back()->signal(SIGTERM);
        daemons_.back()->wait(seconds(10));
        daemons_.pop_back();
    }
    ::unsetenv("SLURM_CONF");
}

bool SlurmNode::answers() const {
    return eventually(seconds(30), [] { return succeeds({"srun", "-n", "1", "true"}); });
}

std::string SlurmNode::log() const {
    std::string text;
    for (const auto& daemon : daemons_) text += daemon->output();
    return text;
}

}  // namespace detente::test
