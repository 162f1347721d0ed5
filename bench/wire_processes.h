// The other side of the wire bench, each a process of its own (this program, started again): a
// server with real shards, and a plain socket that reads and adds. For bench/wire_bench.cpp only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/model_description.h"
#include "common/partition/plan.h"

namespace detente::bench {

struct WireSetup {
    std::uint32_t servers = 1;
    std::uint32_t workers = 1;
    std::uint32_t tensors = 1;
    std::uint64_t tensor_bytes = 0;
    TransportKind transport = TransportKind::tcp;
    bool checksums = true;
    std::string rule = "sgd";

    std::uint64_t bytes() const { return tensors * tensor_bytes; }
    Job job() const;
    ModelDescription model() const;
};

// A child of this process; ends when its standard input closes.
class Child {
  public:
    Child() = default;
    // Starts this program again with these arguments; reads the line it prints when it is ready.
    explicit Child(const std::vector<std::string>& arguments);
    ~Child();
    Child(Child&& other) noexcept;
    Child& operator=(Child&& other) noexcept;

    const std::string& line() const { return line_; }
    double cpu_s() const;       // of all its threads so far
    double memory_mib() const;  // the most it had resident
    double start_ms() const { return start_ms_; }

  private:
    int pid_ = -1;
    int input_ = -1;
    std::string line_;
    double start_ms_ = 0;
};

Child start_server(const WireSetup& setup, std::uint32_t index);
// Endpoint addresses from the server's line.
std::string tcp_of(const Child& server);
std::string ipc_of(const Child& server);
Child start_raw(TransportKind transport, std::uint64_t bytes);

// main() of the children; none if the arguments are not for a child.
bool is_child(int argc, char** argv);
int child_main(int argc, char** argv);

// One plain connection to a raw child.
class RawClient {
  public:
    RawClient(TransportKind transport, const Child& raw, std::uint64_t bytes);
    ~RawClient();
    RawClient(const RawClient&) = delete;
    RawClient& operator=(const RawClient&) = delete;
    // Writes so many bytes in chunks; the child reads each and adds it in place, and says done.
    void push(std::uint64_t bytes, std::uint64_t chunk_bytes);
    // Reads so many bytes of the child's store.
    void pull(std::uint64_t bytes, std::uint64_t chunk_bytes);
    void push_pull(std::uint64_t bytes, std::uint64_t chunk_bytes);

  private:
    void request(char what, std::uint64_t bytes, std::uint64_t chunk_bytes);
    void write_all(std::uint64_t bytes, std::uint64_t chunk_bytes);
    void read_all(std::uint64_t bytes, std::uint64_t chunk_bytes);
    int socket_ = -1;
    std::vector<char> memory_;
};

}  // namespace detente::bench
